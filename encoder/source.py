"""The changelog as a consumer group reads it: micro-batches in, offsets committed once their work is done."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from edge.group import leave_group
from edge.kafka import KafkaConfig, make, mapped
from edge.process import FAREWELL_S, in_time
from encoder.changelog import ChangelogRecord
from schemas.errors import SlipstreamError, TopicError

_log = logging.getLogger(__name__)

_WARN_EVERY_S = 10.0
#: librdkafka says so after it has looked for a while (topic.metadata.propagation.max.ms, 30 s).
_HOPELESS = {
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
}


@dataclass(frozen=True)
class SourceConfig:
    """
    Attributes:
        session_timeout_s: a worker that is silent for so long loses its partitions.
        max_poll_interval_s: likewise one that does not come back for more.
        commit_interval_s: how often offsets are committed: what a successor may meet again.
    """

    kafka: KafkaConfig
    topic: str
    group: str
    session_timeout_s: float = 6.0
    max_poll_interval_s: float = 300.0
    commit_interval_s: float = 0.5


class Polled(NamedTuple):
    """
    Attributes:
        next_offsets: by partition, what is to be committed when the records are done. Beyond the last record where the partition
            ends in markers of transactions, so that a worker that has caught up has a lag of 0.
    """

    records: list[ChangelogRecord]
    next_offsets: dict[int, int]


class Source:
    """Reads the partitions that the group gives it. Not for several threads."""

    def __init__(self, config: SourceConfig, on_gone: Callable[[set[int]], None]) -> None:
        """
        Args:
            on_gone: told the partitions that are another worker's now; what is done is committed before.

        Raises:
            ConfigError: librdkafka does not take an option.
        """
        self._config = config
        self._on_gone = on_gone
        self._owned: set[int] = set()
        self._positions: dict[int, int] = {}
        self._to_commit: dict[int, int] = {}
        self._committed_s = monotonic()
        self._warned_s = -_WARN_EVERY_S
        self._failure: SlipstreamError | None = None
        self._consumer = make(Consumer, _settings(config, self._on_error, self._on_commit), config.kafka)
        self._consumer.subscribe(
            [config.topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def wait(self, timeout_s: float) -> Message | None:
        """The first message, or None after the timeout. Hand it to `take`.

        Raises:
            TopicError: the topic is gone, or this user may not read it.
        """
        first = self._consumer.poll(timeout_s)
        if self._failure is not None:
            raise self._failure
        return first

    def take(self, first: Message, max_records: int) -> Polled:
        """The first message and what has gathered behind it, without waiting: alone a batch of one, under load a larger one.

        Raises:
            TopicError: the topic was made anew: offsets begin again and fences mean nothing any more.
        """
        messages = [first, *self._consumer.consume(max_records - 1, 0)]
        records: list[ChangelogRecord] = []
        next_offsets: dict[int, int] = {}
        for message in messages:
            partition, offset = message.partition(), message.offset()
            error = message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                self._on_error(error)
                continue
            if partition is None or offset is None or partition not in self._owned:
                continue  # taken away while we were polling; its new owner reads it
            if offset < self._positions.get(partition, 0):
                raise TopicError(
                    f"topic {self._config.topic}, partition {partition}: offset {offset} came after "
                    f"{self._positions[partition]}: the topic was made anew. Start the encoder again"
                )
            if error is None:
                _, timestamp_ms = message.timestamp()
                records.append(ChangelogRecord(message.key(), message.value(), partition, offset, timestamp_ms))
                offset += 1
            self._positions[partition] = next_offsets[partition] = offset
        return Polled(records, next_offsets)

    def done(self, polled: Polled) -> None:
        """The records' work is done: their offsets may be committed."""
        self._to_commit.update({p: o for p, o in polled.next_offsets.items() if p in self._owned})

    def commit_if_due(self) -> None:
        if self._to_commit and monotonic() - self._committed_s >= self._config.commit_interval_s:
            self._commit(set(self._to_commit), wait=False)

    def lag_records(self) -> dict[int, int]:
        """By partition, how far the end of the log is ahead, as of the last fetch."""
        lags = {}
        for partition in self._owned:
            watermarks = self._consumer.get_watermark_offsets(self._partition(partition), cached=True)
            if watermarks is not None and watermarks[1] >= 0 and partition in self._positions:
                lags[partition] = max(0, watermarks[1] - self._positions[partition])
        return lags

    def close(self) -> bool:
        """Commit what is done and leave the group. False: Kafka did not answer in time, and a thread of this process still waits
        for it; what was not committed comes again."""
        committed = self._commit(set(self._to_commit), wait=True)
        return leave_group(self._consumer, self._config.kafka, _log) and committed

    def _commit(self, partitions: set[int], wait: bool) -> bool:
        """False: Kafka did not answer in time. To `wait` is bounded, since librdkafka waits for a coordinator that is gone for
        more than a minute, and nobody can stop it."""
        offsets = [self._partition(p, self._to_commit.pop(p)) for p in partitions if p in self._to_commit]
        self._committed_s = monotonic()
        if not offsets:
            return True
        try:
            if not wait:
                self._consumer.commit(offsets=offsets, asynchronous=True)
            elif not in_time(FAREWELL_S, lambda: self._consumer.commit(offsets=offsets, asynchronous=False)):
                _log.warning(
                    "offsets of topic %s, partitions %s were not committed within %.0f s, their records come again: Kafka at %s "
                    "does not answer",
                    self._config.topic,
                    sorted(p.partition for p in offsets),
                    FAREWELL_S,
                    self._config.kafka.bootstrap_servers,
                )
                return False
        except KafkaException as error:
            self._on_commit(error.args[0], offsets)
        return True

    def _on_commit(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        failed = [p for p in offsets if error is not None or p.error is not None]
        if failed:  # the records come again, and find their states up to date
            cause = error or failed[0].error
            _log.warning(
                "offsets of topic %s were not committed, their records come again: %s",
                self._config.topic,
                cause.str() if cause else "",
            )
        for p in failed:
            if p.partition in self._owned:
                self._to_commit.setdefault(p.partition, p.offset)

    def _partition(self, partition: int, offset: int | None = None) -> TopicPartition:
        if offset is None:
            return TopicPartition(self._config.topic, partition)
        return TopicPartition(self._config.topic, partition, offset)

    def _on_error(self, error: KafkaError) -> None:
        """What librdkafka does not get over by itself ends the next `wait`; the rest it does, and goes on."""
        where = f"Kafka at {self._config.kafka.bootstrap_servers}, topic {self._config.topic}"
        if error.fatal() or error.code() in _HOPELESS:
            self._failure = mapped(error, where)
        elif monotonic() - self._warned_s > _WARN_EVERY_S:  # it dials 20 times a second, and says so each time
            self._warned_s = monotonic()
            _log.warning("%s: %s; trying on", where, error.str())

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        gained = {p.partition for p in partitions}
        self._owned |= gained
        for partition in gained:
            self._positions.pop(partition, None)
        if gained:
            _log.info("reading partitions %s of %s", sorted(self._owned), self._config.topic)

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        gone = {p.partition for p in partitions}
        self._commit(gone, wait=True)
        self._forget(gone)

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        _log.warning("partitions %s are another worker's since this one was silent", [p.partition for p in partitions])
        self._forget({p.partition for p in partitions})

    def _forget(self, gone: set[int]) -> None:
        self._owned -= gone
        for partition in gone:
            self._to_commit.pop(partition, None)
        self._on_gone(gone)


def _settings(
    config: SourceConfig,
    on_error: Callable[[KafkaError], None],
    on_commit: Callable[[KafkaError | None, list[TopicPartition]], None],
) -> dict[str, object]:
    return config.kafka.client(
        group_id=config.group,
        client_id="slipstream-encoder",
        error_cb=on_error,
        on_commit=on_commit,
        isolation_level="read_committed",
        partition_assignment_strategy="cooperative-sticky",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        enable_auto_offset_store=False,
        enable_partition_eof=True,
        allow_auto_create_topics=False,
        session_timeout_ms=int(config.session_timeout_s * 1000),
        heartbeat_interval_ms=int(config.session_timeout_s * 1000 / 4),
        max_poll_interval_ms=int(config.max_poll_interval_s * 1000),
        # A sequence has up to 5 KiB; what waits here is bounded, and read again after a crash.
        queued_max_messages_kbytes=32 * 1024,
        fetch_queue_backoff_ms=20,  # when that is full; 1 s by default, which the queue may not last
        # With one record there is a fetch's answer at once; this bounds only how long an idle one waits at the broker.
        fetch_wait_max_ms=500,
    )
