"""The spans of a transaction of the sequence stage: batches received, processed (merged), sent as changelog records.

The batches' headers name the traced events with their users; the users' changelog records get the header in turn.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from time import time_ns
from typing import TYPE_CHECKING, NamedTuple

from edge.tracing import Tracing, parent_of
from schemas.names import Names
from schemas.traces import HEADER_TRACES, MAX_TRACES, TraceParent, decode_traces, encode_traces, header_of
from stream.batch_queue import Pending
from stream.changelog import RecordHeaders, Write
from stream.dead_letters import Provenance

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class _Traced(NamedTuple):
    parent: TraceParent
    at: Provenance


class SequenceTraces:
    """Of all partitions."""

    def __init__(self, tracing: Tracing, names: Names) -> None:
        self._tracing = tracing
        self._names = names

    def begin(self, taken: Sequence[Pending]) -> TransactionTraces | None:
        """Begin the spans of a transaction. None: nothing of it is traced."""
        found = [
            _Traced(parent, pending.provenance)
            for pending in taken
            if pending.headers
            for parent in decode_traces(header_of(pending.headers))
        ]
        if not found:
            return None
        traced, dropped = found[:MAX_TRACES], max(0, len(found) - MAX_TRACES)
        return TransactionTraces(self._tracing, self._names, traced, len(taken), dropped)


class TransactionTraces:
    """The traced events of one transaction."""

    def __init__(self, tracing: Tracing, names: Names, traced: Sequence[_Traced], messages: int, dropped: int) -> None:
        self._tracing = tracing
        self._names = names
        self._sends: list[Span] = []
        begun_ns = time_ns()
        group = {"messaging.consumer.group.name": names.sequence_app}
        tracing.received(names.batches, [event.parent for event in traced], messages, dropped, group, begun_ns)
        self._partition = str(traced[0].at.partition)
        self._spans = [
            tracing.messaging(
                "process",
                names.batches,
                event.parent,
                {
                    **group,
                    "messaging.destination.partition.id": self._partition,
                    "messaging.kafka.offset": event.at.offset,
                },
                begun_ns,
            )
            for event in traced
        ]
        self._users = [event.parent.user for event in traced]

    def sending(self, writes: Sequence[Write]) -> Mapping[bytes, RecordHeaders]:
        """The headers of the users' records. A user whose sequence did not change gets none."""
        written = {write.key for write in writes}
        parents: dict[bytes, list[TraceParent]] = defaultdict(list)
        attributes = {"messaging.destination.partition.id": self._partition}
        for user, span in zip(self._users, self._spans, strict=True):
            span.set_attribute("slipstream.sequence.changed", user in written)
            if user in written:
                send = self._tracing.messaging("send", self._names.sequences, parent_of(span), attributes)
                self._sends.append(send)
                parents[user].append(parent_of(send))
        return {user: [(HEADER_TRACES, encode_traces(of))] for user, of in parents.items()}

    def end(self) -> None:
        """The transaction is committed."""
        for span in (*self._sends, *self._spans):
            span.end()
