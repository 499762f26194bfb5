"""Which events of a pass are traced, and their spans: received, processed (validated and packed), sent.

The packed batches stay what they are; traced events are named in a header of their batch (schemas/traces.py). An event is traced
if its producer's `traceparent` says so, or, where the message has none, by lot.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from time import time_ns
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from confluent_kafka import KafkaError, Message

from edge.tracing import Attributes, Tracing, parent_of
from schemas.errors import EventError
from schemas.event import Parser
from schemas.names import Names
from schemas.traces import HEADER_TRACES, MAX_TRACES, TraceParent, encode_traces, sampled_parent
from stream.dead_letters import Headers
from stream.pack import Packed
from stream.partitioner import partitions_of

if TYPE_CHECKING:
    from opentelemetry.trace import Span

OnDelivery = Callable[[KafkaError | None, Message], None]
#: Events of a pass that are looked at: their user must be known, so each is parsed twice.
_MOST_OF_A_PASS = 64


class _Traced(NamedTuple):
    user: bytes
    span: Span


class IngestTraces:
    """Of one worker.

    Args:
        ratio: of the messages without a `traceparent`, how many are traced.
        partitions: of `engagement-batches`.
    """

    def __init__(self, tracing: Tracing, ratio: float, names: Names, parser: Parser, partitions: int) -> None:
        self._tracing = tracing
        self._ratio = ratio
        self._names = names
        self._parser = parser
        self._partitions = partitions
        self._random = np.random.default_rng()

    def begin(self, messages: Sequence[Message], values: Sequence[bytes | None]) -> PassTraces | None:
        """Begin the spans of a pass. None: nothing of it is traced."""
        picked = self._picked(messages)
        if not picked:
            return None
        begun_ns = time_ns()
        dropped = max(0, len(picked) - _MOST_OF_A_PASS)
        traced: list[_Traced] = []
        parents: list[TraceParent] = []
        for i, parent in picked[:_MOST_OF_A_PASS]:
            message = messages[i]
            attributes: Attributes = {
                "messaging.destination.partition.id": str(message.partition()),
                "messaging.kafka.offset": cast(int, message.offset()),
                "messaging.consumer.group.name": self._names.ingest_group,
            }
            span = self._tracing.messaging("process", self._names.engagements, parent, attributes, begun_ns)
            parents.append(parent or parent_of(span))
            try:
                user = self._parser.parse(values[i], message.timestamp()[1]).user
            except EventError as error:  # it becomes a dead letter
                self._tracing.fail(span, error.reason)
                continue
            traced.append(_Traced(user, span))
        group = {"messaging.consumer.group.name": self._names.ingest_group}
        self._tracing.received(self._names.engagements, parents, len(messages), dropped, group, begun_ns)
        by_partition: dict[int, list[_Traced]] = defaultdict(list)
        owners = partitions_of([event.user for event in traced], self._partitions).tolist() if traced else []
        for partition, event in zip(owners, traced, strict=True):
            by_partition[partition].append(event)
        return PassTraces(self._tracing, self._names, by_partition)

    def _picked(self, messages: Sequence[Message]) -> list[tuple[int, TraceParent | None]]:
        """Places in the pass, each with the producer's span, None where there is none."""
        drawn = set(np.flatnonzero(self._random.random(len(messages)) < self._ratio).tolist()) if self._ratio else set()
        picked: list[tuple[int, TraceParent | None]] = []
        for i, message in enumerate(messages):
            headers = message.headers()
            parent = sampled_parent(cast(Headers, headers)) if headers else None
            if isinstance(parent, TraceParent):
                picked.append((i, parent))
            elif parent is None and i in drawn:
                picked.append((i, None))
        return picked


class PassTraces:
    """The traced events of one pass, by the partition that they go to."""

    def __init__(self, tracing: Tracing, names: Names, by_partition: dict[int, list[_Traced]]) -> None:
        self._tracing = tracing
        self._names = names
        self._by_partition = by_partition

    def packed(self, packed: Packed) -> None:
        """Drop those of a partition whose batch had to be split: which part has the user is not known."""
        of = [batch.partition for batch in packed.batches]
        for partition in {p for p in of if of.count(p) > 1}:
            for event in self._by_partition.pop(partition, []):
                self._tracing.fail(event.span, "split_batch")

    def sending(self, partition: int, on_delivery: OnDelivery) -> tuple[Headers, OnDelivery]:
        """Headers for the partition's batch, and who is to be told of its delivery."""
        events = self._by_partition.get(partition)
        if not events:
            return [], on_delivery
        for event in events[MAX_TRACES:]:
            self._tracing.fail(event.span, "too_many_traces")
        events = events[:MAX_TRACES]
        attributes = {"messaging.destination.partition.id": str(partition)}
        sends = [
            self._tracing.messaging("send", self._names.batches, parent_of(event.span), attributes) for event in events
        ]

        def delivered(error: KafkaError | None, message: Message) -> None:
            for event, send in zip(events, sends, strict=True):
                if error is not None:
                    self._tracing.fail(send, error.name())
                    self._tracing.fail(event.span, error.name())
                    continue
                send.set_attribute("messaging.kafka.offset", cast(int, message.offset()))
                send.end()
                event.span.end()
            on_delivery(error, message)

        parents = [parent_of(send, event.user) for event, send in zip(events, sends, strict=True)]
        return [(HEADER_TRACES, encode_traces(parents))], delivered
