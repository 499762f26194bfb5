"""The spans of a refresh: changelog records received, processed (planned, run), states written to Redis: the end of a trace.

A user's records of one batch are one refresh, so traces of several may end in the same write.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from time import time_ns
from typing import NamedTuple

from edge.tracing import Attributes, Tracing, parent_of
from encoder.changelog import ChangelogRecord, Folded
from encoder.engine import Done
from schemas.names import Names
from schemas.traces import MAX_TRACES, TraceParent, decode_traces

_NS_PER_MS = 1_000_000


class _Traced(NamedTuple):
    parent: TraceParent
    record: ChangelogRecord


class RefreshTraces:
    """Of one model."""

    def __init__(self, tracing: Tracing, names: Names, model_id: str) -> None:
        self._tracing = tracing
        self._topic = names.sequences
        self._of_all = {
            "messaging.consumer.group.name": names.encoder_group(model_id),
            "slipstream.model.id": model_id,
        }

    def begin(self, records: Sequence[ChangelogRecord]) -> BatchTraces | None:
        """None: nothing of it is traced."""
        found = [_Traced(parent, record) for record in records for parent in decode_traces(record.traces)]
        if not found:
            return None
        traced, dropped = found[:MAX_TRACES], max(0, len(found) - MAX_TRACES)
        return BatchTraces(self._tracing, self._topic, self._of_all, traced, len(records), dropped)


class BatchTraces:
    """The traced records of one batch. Their spans are made when it is done."""

    def __init__(
        self,
        tracing: Tracing,
        topic: str,
        of_all: dict[str, str],
        traced: Sequence[_Traced],
        messages: int,
        dropped: int,
    ) -> None:
        self._tracing = tracing
        self._topic = topic
        self._of_all = of_all
        self._traced = traced
        self._begun_ns = time_ns()
        tracing.received(topic, [event.parent for event in traced], messages, dropped, of_all, self._begun_ns)

    def end(self, worked: Iterable[tuple[Folded, Done]], write_s: float) -> None:
        """The batch's states are in Redis.

        Args:
            write_s: what writing them took, together.
        """
        done_by_user = {folded.update.user: done for folded, done in worked}
        for parent, record in self._traced:
            done = done_by_user.get(record.user or b"")
            attributes: Attributes = {
                **self._of_all,
                "messaging.destination.partition.id": str(record.partition),
                "messaging.kafka.offset": record.offset,
            }
            span = self._tracing.messaging("process", self._topic, parent, attributes, self._begun_ns)
            if done is None:
                self._tracing.fail(span, "bad_sequence")
                continue
            span.set_attribute("slipstream.refresh.kind", str(done.kind) if done.kind else "superseded")
            span.set_attribute("slipstream.refresh.events", done.events)
            if done.written_ms:
                end_ns = max(self._begun_ns, done.written_ms * _NS_PER_MS)
                batch = {"db.operation.batch.size": len(done_by_user)} if len(done_by_user) > 1 else {}
                start_ns = max(self._begun_ns, end_ns - int(write_s * 1e9))
                self._tracing.redis(parent_of(span), batch, start_ns).end(end_ns)
            span.end()
