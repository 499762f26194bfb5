"""What the consumers of the changelog have in common: how they are set up, and what they make of a message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from confluent_kafka import KafkaError, Message, TopicPartition

from edge.kafka import KafkaConfig
from encoder.backfill import BackfillConfig
from encoder.changelog import ChangelogRecord
from schemas.errors import TopicError
from schemas.traces import Headers, header_of


@dataclass(frozen=True)
class SourceConfig:
    """
    Attributes:
        session_timeout_s: a worker that is silent for so long loses its partitions.
        max_poll_interval_s: likewise one that does not come back for more.
        commit_interval_s: how often offsets are committed: what a successor may meet again.
        window: most events of a state.
        traced: read which events are traced.
    """

    kafka: KafkaConfig
    topic: str
    group: str
    session_timeout_s: float = 6.0
    max_poll_interval_s: float = 300.0
    commit_interval_s: float = 0.5
    backfill: BackfillConfig = field(default_factory=BackfillConfig)
    window: int = 256
    traced: bool = False


class Polled(NamedTuple):
    """
    Attributes:
        next_offsets: by partition, what is to be committed when the records are done. Beyond the last record where the partition
            ends in markers of transactions, so that a worker that has caught up has a lag of 0.
    """

    records: list[ChangelogRecord]
    next_offsets: dict[int, int]


def to_record(message: Message, partition: int, offset: int, traced: bool = False) -> ChangelogRecord:
    _, timestamp_ms = message.timestamp()
    traces = header_of(cast("Headers | None", message.headers())) if traced else None
    return ChangelogRecord(message.key(), message.value(), partition, offset, timestamp_ms, traces)


def made_anew(topic: str, partition: int, offset: int, expected: int) -> TopicError:
    """The error for an offset that came although it was read before: offsets begin again, and fences mean nothing any more."""
    return TopicError(
        f"topic {topic}, partition {partition}: offset {offset} came after {expected}: the topic was made anew. Start the "
        "encoder again"
    )


def settings_of_any(config: SourceConfig, on_error: Callable[[KafkaError], None]) -> dict[str, object]:
    """Of every consumer of the changelog; one that only `assign`s needs the group's name too, and joins nothing."""
    return config.kafka.client(
        group_id=config.group,
        client_id="slipstream-encoder",
        error_cb=on_error,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        enable_auto_offset_store=False,
        enable_partition_eof=True,
        allow_auto_create_topics=False,
        # A sequence has up to 5 KiB; what waits here is bounded, and read again after a crash.
        queued_max_messages_kbytes=32 * 1024,
        fetch_queue_backoff_ms=20,  # when that is full; 1 s by default, which the queue may not last
        # With one record there is a fetch's answer at once; this bounds only how long an idle one waits at the broker.
        fetch_wait_max_ms=500,
    )


def settings_of_member(
    config: SourceConfig,
    on_error: Callable[[KafkaError], None],
    on_commit: Callable[[KafkaError | None, list[TopicPartition]], None],
) -> dict[str, object]:
    """Of the one that takes part in the group."""
    return {
        **settings_of_any(config, on_error),
        "on_commit": on_commit,
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": int(config.session_timeout_s * 1000),
        "heartbeat.interval.ms": int(config.session_timeout_s * 1000 / 4),
        "max.poll.interval.ms": int(config.max_poll_interval_s * 1000),
    }
