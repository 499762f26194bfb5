"""A topic, or spans of it, read up to where it ended when the reading began."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, cast

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from edge.kafka import Admin, KafkaConfig, make, mapped
from schemas.errors import TopicError, UnavailableError
from schemas.names import readers_group
from stream.offsets import end_offsets, start_offsets
from stream.topics import partition_counts, topic_settings

_CHUNK = 10_000
STALLED_AFTER_S = 30.0

Headers = Sequence[tuple[str, str | bytes | None]]
OnProgress = Callable[[int, int], None]
"""Called with the offsets passed so far, and those that there are."""


class Record(NamedTuple):
    """A committed message and its provenance. `timestamp_ms` is Kafka's, -1 if it has none."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


def partitions_in(kafka: KafkaConfig, topic: str) -> int:
    """The topic's number of partitions.

    Raises:
        TopicError, UnavailableError: it does not exist, or Kafka does not answer.
    """
    counts = partition_counts(Admin(kafka), [topic])
    if topic not in counts:
        raise TopicError(f"{kafka.bootstrap_servers} has no topic {topic}: run `slipstream topics create`")
    return counts[topic]


def require_whole(kafka: KafkaConfig, topic: str) -> None:
    """Check that the topic still holds every message that was ever written to it.

    Raises:
        TopicError: retention, a deletion of records or compaction has removed some.
        UnavailableError: Kafka does not answer.
    """
    settings = topic_settings(Admin(kafka), [topic])[topic]  # None: this user may not see them
    if settings is not None and "compact" in settings.get("cleanup.policy", ""):
        raise TopicError(f"topic {topic} is compacted (cleanup.policy), so it does not keep every message")
    wanted = [(topic, partition) for partition in range(partitions_in(kafka, topic))]
    for (_, partition), first in start_offsets(Admin(kafka), wanted).items():
        if first > 0:
            raise TopicError(
                f"topic {topic}, partition {partition} begins at offset {first}: retention removed what came before, so nobody "
                "can say from it what every sequence must be; raise retention.ms before the next check"
            )


def read_whole(kafka: KafkaConfig, topic: str, on_progress: OnProgress | None = None) -> Iterator[list[Record]]:
    """Every committed record that is in the topic now, in chunks; each partition in order. Of a compacted topic, what is left.

    What is written meanwhile is not read. It ends also where the last offsets hold transaction markers or aborted records; a
    transaction that is open now is not waited for.

    Raises:
        TopicError: the topic does not exist, or lost its beginning while it was read.
        UnavailableError: nothing came for `STALLED_AFTER_S`.
    """
    wanted = [(topic, partition) for partition in range(partitions_in(kafka, topic))]
    ends = {partition: end for (_, partition), end in end_offsets(Admin(kafka), wanted, committed_only=True).items()}
    yield from read_spans(kafka, topic, {partition: (0, end) for partition, end in ends.items()}, on_progress)


def read_spans(
    kafka: KafkaConfig, topic: str, spans: Mapping[int, tuple[int, int]], on_progress: OnProgress | None = None
) -> Iterator[list[Record]]:
    """As `read_whole`, but of each partition only the offsets [start, end); no end may lie behind the last stable offset.

    Raises:
        TopicError, UnavailableError: as `read_whole`.
    """
    starts = {partition: start for partition, (start, end) in spans.items() if start < end}
    ends = {partition: spans[partition][1] for partition in starts}
    passed = dict(starts)  # next offsets of what is being read
    if not passed:
        return
    total = sum(ends.values()) - sum(starts.values())
    consumer: Consumer = make(Consumer, _settings(kafka, topic), kafka)
    try:
        consumer.assign([TopicPartition(topic, partition, start) for partition, start in starts.items()])
        progress_s = time.monotonic()
        while any(passed[partition] < ends[partition] for partition in passed):
            messages = consumer.consume(_CHUNK, 0.1)
            if messages:
                progress_s = time.monotonic()
            elif time.monotonic() - progress_s > STALLED_AFTER_S:
                raise UnavailableError(f"topic {topic}: nothing could be read for {STALLED_AFTER_S:.0f} s")
            if records := _records(messages, passed, ends, topic):
                yield records
            if on_progress is not None and messages:
                on_progress(sum(min(passed[p], ends[p]) - starts[p] for p in passed), total)
    finally:
        consumer.close()


def _records(messages: list[Message], passed: dict[int, int], ends: dict[int, int], topic: str) -> list[Record]:
    """The records before their partition's end; moves `passed` on, over what has no record too."""
    records = []
    for message in messages:
        partition, offset, error = cast(int, message.partition()), cast(int, message.offset()), message.error()
        if error is None:
            passed[partition] = offset + 1
            if offset < ends[partition]:
                value, key = message.value(), message.key()
                records.append(
                    Record(
                        partition, offset, message.timestamp()[1], key, value, cast(Headers, message.headers() or ())
                    )
                )
        elif error.code() == KafkaError._PARTITION_EOF:
            passed[partition] = offset  # past markers and aborted records
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise TopicError(
                f"topic {topic}, partition {partition}: retention removed its beginning during the reading"
            )
        elif not error.retriable():
            raise mapped(error, f"topic {topic}, partition {partition}")
    return records


def _settings(kafka: KafkaConfig, topic: str) -> dict[str, object]:
    return kafka.client(
        group_id=readers_group(topic),
        enable_auto_commit=False,
        enable_partition_eof=True,
        auto_offset_reset="error",
        isolation_level="read_committed",
        fetch_message_max_bytes=4 << 20,
        queued_max_messages_kbytes=64 << 10,
        fetch_queue_backoff_ms=10,
    )
