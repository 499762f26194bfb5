"""One ingest worker: raw events in, packed batches out.

One pass of the loop, and the order in which things become durable:

    1 poll     what has arrived; a lone event does not wait, under load a pass takes what gathered since the last one
    2 pack     (stream.pack) regroup what is valid by user and partition
    3 produce  (stream.ingest_output) the batches, and what is not valid as dead letters
    4 deliver  wait, while later passes go on, until the broker has acknowledged all of them
    5 commit   the source offsets

A crash between any two steps repeats the pass after the last commit: at least once, which is enough, since the merge downstream
is idempotent. A slow broker fills the passes under way, then polling stops; librdkafka's own buffers are bounded.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from edge.group import leave_group
from edge.kafka import make, mapped
from edge.process import FAREWELL_S, in_time
from edge.tracing import Tracing
from schemas.errors import UnavailableError
from schemas.event import Parser
from stream.config import IngestConfig
from stream.dead_letters import Headers
from stream.expired import ExpiredOffsets
from stream.in_flight import InFlight
from stream.ingest_output import IngestOutput
from stream.ingest_traces import IngestTraces
from stream.metrics import IngestMetrics
from stream.pack import Packed, pack
from stream.registry import StoppedError, framed_reader, framed_value

logger = logging.getLogger(__name__)

#: What librdkafka does not get over by itself.
_HOPELESS = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
}


class IngestWorker:
    """The loop.

    Args:
        partitions: of `engagement-batches`.
        stop: ends it, when it is set.
    """

    def __init__(
        self,
        config: IngestConfig,
        metrics: IngestMetrics,
        partitions: int,
        stop: threading.Event,
        tracing: Tracing | None = None,
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._partitions = partitions
        self._parser = Parser(
            config.parser,
            framed_reader(config.schema_registry, config.parser.formats, config.give_up_after_s, self._pause),
        )
        self._traces = (
            IngestTraces(tracing, config.traces.ratio, config.names, self._parser, partitions)
            if tracing and config.traces
            else None
        )
        self._in_flight = InFlight()
        self._to_commit: dict[int, int] = {}  # partition -> next offset
        self._owned: set[int] = set()
        self._stop = stop
        self._leaving = False
        self._last_pass_s = self._last_commit_s = self._last_lag_s = time.monotonic()
        self._consumer: Consumer = make(Consumer, _consumer_settings(config), config.kafka)
        self._output = IngestOutput(config, metrics, stop)
        self._expired = ExpiredOffsets(self._consumer, config.names.engagements, metrics.expired_messages.inc)

    def run(self, on_pass: Callable[[], None]) -> bool:
        """Passes until it is told to stop; leaves the group, whatever happens. `on_pass` raises when it is time to give up.

        False: it could not leave in good order, since Kafka does not answer; what was not committed comes again.
        """
        self._consumer.subscribe(
            [self._config.names.engagements],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )
        try:
            while not self._stop.is_set():
                on_pass()
                for partition, offset in self._expired.restart().items():
                    self._in_flight.begin({partition: offset})  # commits it, after what was read before
                if messages := self._poll():
                    self._process(messages)
                self._settle()
                self._report_lag()
            return self._leave()
        except StoppedError:
            return self._leave()
        except BaseException:
            self._leaving = True
            in_time(FAREWELL_S, self._consumer.close)
            raise

    def _leave(self) -> bool:
        try:
            answered = self._deliver_and_commit(set(self._owned))
        except UnavailableError as error:  # told to stop just when a delivery was given up
            logger.warning("offsets were not committed, their events come again: %s", error)
            answered = False
        self._leaving = True
        return leave_group(self._consumer, self._config.kafka, logger) and answered

    # 1 poll
    def _poll(self) -> list[Message]:
        self._output.wait(0)
        if len(self._in_flight) >= self._config.max_passes_in_flight:
            self._output.wait(0.05)
            return []
        # Deliveries are noticed between polls, so wait only briefly while some are due.
        first = self._consumer.poll(0.005 if self._in_flight else 0.1)
        if first is None:
            return []
        until = self._last_pass_s + self._config.linger_ms / 1000
        while (left := until - time.monotonic()) > 0 and not self._stop.is_set():
            self._output.wait(left)
        self._last_pass_s = time.monotonic()
        rest = self._consumer.consume(self._config.max_poll_messages - 1, 0)
        return [message for message in (first, *rest) if self._is_readable(message)]

    def _is_readable(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.code() in _HOPELESS or error.fatal():
            raise mapped(error, f"topic {self._config.names.engagements} cannot be read")
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            if message.partition() in self._owned:
                self._expired.report(message)
            return False
        logger.warning("reading %s: %s", self._config.names.engagements, error.str())  # librdkafka goes on by itself
        return False

    # 2 pack, 3 produce
    def _process(self, messages: list[Message]) -> None:
        next_offsets: dict[int, int] = {}
        for message in messages:  # of one partition in order
            next_offsets[cast(int, message.partition())] = cast(int, message.offset()) + 1
        values = self._values(messages)
        arrived = [message.timestamp()[1] for message in messages]
        traced = self._traces.begin(messages, values) if self._traces else None
        packed = pack(values, arrived, self._parser, self._partitions, self._config.max_batch_bytes)
        if traced:
            traced.packed(packed)
        self._output.send(self._in_flight.begin(next_offsets), packed, messages, min(arrived) / 1000, traced)
        self._count(len(messages), packed)

    def _values(self, messages: list[Message]) -> list[bytes | None]:
        if self._config.schema_registry is None:
            return [message.value() for message in messages]
        return [framed_value(message.value(), cast("Headers | None", message.headers())) for message in messages]

    def _pause(self, seconds: float) -> None:
        """While the schema registry is away. What was produced before is delivered and committed meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._stop.is_set():
                raise StoppedError
            self._output.wait(min(left, 0.1))
            self._settle()

    def _count(self, messages: int, packed: Packed) -> None:
        self._metrics.stage.messages.inc(messages)
        self._metrics.pass_messages.observe(messages)
        self._metrics.events.inc(packed.events)
        self._metrics.batches.inc(len(packed.batches))
        self._metrics.batch_bytes.inc(sum(len(batch.value) for batch in packed.batches))

    # 4 deliver, 5 commit
    def _settle(self) -> None:
        self._output.raise_failure()
        self._to_commit |= self._in_flight.settle()
        now = time.monotonic()
        if self._to_commit and now - self._last_commit_s >= self._config.commit_interval_s:
            self._last_commit_s = now
            self._consumer.commit(offsets=self._take_offsets(self._owned), asynchronous=True)

    def _take_offsets(self, partitions: set[int]) -> list[TopicPartition]:
        topic = self._config.names.engagements
        return [
            TopicPartition(topic, partition, self._to_commit.pop(partition))
            for partition in sorted(partitions & self._to_commit.keys())
        ]

    def _deliver_and_commit(self, partitions: set[int]) -> bool:
        """Before partitions are given up. What is not delivered in time is not committed, so their next owner repeats it.

        False: Kafka did not answer in time. Both waits are bounded: librdkafka waits for a coordinator that is gone for more than
        a minute, and nobody can stop it.
        """
        delivered = self._output.flush(FAREWELL_S)
        self._output.raise_failure()
        self._to_commit |= self._in_flight.settle()
        offsets, committed = self._take_offsets(partitions), True
        try:
            if offsets:
                committed = in_time(FAREWELL_S, lambda: self._consumer.commit(offsets=offsets, asynchronous=False))
        except KafkaException as error:
            logger.warning(
                "offsets were not committed, the next owner repeats some events: %s", mapped(error, "commit")
            )
            return True
        if not (delivered and committed):
            logger.warning(
                "offsets were not committed, the next owner repeats some events: Kafka at %s does not answer within %.0f s",
                self._config.kafka.bootstrap_servers,
                FAREWELL_S,
            )
        return committed and delivered

    # The group
    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._owned |= {p.partition for p in partitions}
        logger.info("partitions %s: got %s", sorted(self._owned), sorted(p.partition for p in partitions))

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        revoked = {p.partition for p in partitions}
        if not self._leaving:  # when it leaves, that is done
            self._deliver_and_commit(revoked)
        self._drop(revoked)

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._drop({p.partition for p in partitions})

    def _drop(self, partitions: set[int]) -> None:
        self._owned -= partitions
        self._in_flight.forget(partitions)
        self._expired.forget(partitions)
        for partition in partitions:
            self._to_commit.pop(partition, None)
        logger.info("partitions %s: gave up %s", sorted(self._owned), sorted(partitions))

    def _report_lag(self) -> None:
        now = time.monotonic()
        if now - self._last_lag_s < 1.0:
            return
        self._last_lag_s = now
        topic = self._config.names.engagements
        lag: dict[int, int] = {}
        for position in self._consumer.position([TopicPartition(topic, partition) for partition in self._owned]):
            _, end = self._consumer.get_watermark_offsets(position, cached=True)
            if position.offset >= 0 and end >= 0:  # known once something was fetched
                lag[position.partition] = end - position.offset
        self._metrics.stage.lag = lag


def _consumer_settings(config: IngestConfig) -> dict[str, Any]:
    return config.kafka.client(
        group_id=config.names.ingest_group,
        partition_assignment_strategy="cooperative-sticky",
        enable_auto_commit=False,
        auto_offset_reset="error",  # stream.expired
        session_timeout_ms=int(config.session_timeout_s * 1000),
        heartbeat_interval_ms=int(config.session_timeout_s * 1000 / 4),
        # While deliveries stand still the loop does not poll; it gives up by itself, before the group would. Not longer than
        # that: librdkafka waits as long for the answer to a JoinGroup, which a broker that was frozen may never send.
        max_poll_interval_ms=int(max(60.0, 1.25 * config.give_up_after_s) * 1000),
        queued_max_messages_kbytes=32 << 10,
        fetch_queue_backoff_ms=10,
        fetch_error_backoff_ms=100,
    )
