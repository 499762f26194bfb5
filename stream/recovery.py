"""Reads changelog partitions into tables, in bulk: what Faust's own recovery does record by record.

From the beginning, or from where a table that was kept ends.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, cast

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from edge.allocator import return_freed_memory
from edge.kafka import KafkaConfig, make, mapped
from schemas.errors import SequenceError, UnavailableError
from schemas.names import readers_group
from schemas.sequence import is_of_another_version, verify_sequence
from stream.dead_letters import Provenance
from stream.store import PartitionTable, Stores

_CHUNK = 10_000

_Write = tuple[bytes, bytes | None, int]


class Damaged(NamedTuple):
    """A changelog record that cannot be decoded: it counts as no record."""

    provenance: Provenance
    key: bytes | None
    value: bytes
    error: str


class Loaded(NamedTuple):
    """A partition's table as of the changelog's end. `records` counts what was read, from `from_offset` on."""

    partition: int
    table: PartitionTable
    from_offset: int
    records: int
    seconds: float
    damaged: list[Damaged]


class Ends(NamedTuple):
    """Where the partitions end.

    Attributes:
        offsets: partition -> its end offset, transaction markers included. The caller has fenced off every other writer of these
            partitions, so that the ends stay the ends.
        as_of_ms: when they were asked for.
    """

    offsets: Mapping[int, int]
    as_of_ms: int


def load_partitions(
    kafka: KafkaConfig,
    topic: str,
    stores: Stores,
    ends: Ends,
    on_loaded: Callable[[Loaded], None],
    stop: threading.Event,
    stalled_after_s: float,
) -> None:
    """Read committed records up to the ends; calls `on_loaded` for each partition as it is whole. Blocking: for a thread.

    Args:
        stop: ends it early, with nothing more loaded.
        stalled_after_s: without progress for so long it gives up.

    Raises:
        SequenceError: a record of another version: this build must not write over it.
        UnavailableError: no progress.
        StoreError: the disk does not let it.
    """
    started_s = time.monotonic()
    opened = stores.open(ends.offsets, ends.as_of_ms)
    counts = dict.fromkeys(opened, 0)
    damaged: dict[int, list[Damaged]] = {partition: [] for partition in opened}

    def finish(partition: int) -> None:
        table, from_offset = opened[partition]
        table.put_many([], ends.offsets[partition], ends.as_of_ms)
        del opened[partition]
        seconds = time.monotonic() - started_s
        on_loaded(Loaded(partition, table, from_offset, counts[partition], seconds, damaged[partition]))

    consumer: Consumer | None = None
    try:
        for partition in sorted(opened):
            if opened[partition].next_offset >= ends.offsets[partition]:
                finish(partition)
        if not opened:
            return
        consumer = make(Consumer, _settings(kafka, topic), kafka)
        consumer.assign([TopicPartition(topic, partition, o.next_offset) for partition, o in sorted(opened.items())])
        progress_s = time.monotonic()
        while opened and not stop.is_set():
            messages = consumer.consume(_CHUNK, 0.05)
            if messages:
                progress_s = time.monotonic()
            elif time.monotonic() - progress_s > stalled_after_s:
                raise UnavailableError(
                    f"topic {topic}, partitions {sorted(opened)}: nothing could be read for {stalled_after_s:.0f} s"
                )
            whole = opened.keys() & ended(messages, ends.offsets)
            writes: dict[int, list[_Write]] = defaultdict(list)
            next_offsets: dict[int, int] = {}
            for message in messages:
                partition = cast(int, message.partition())
                if partition not in opened:
                    continue  # whole already: its owner writes again, which is not ours to read
                error = message.error()
                if error is not None:
                    if error.code() != KafkaError._PARTITION_EOF and not error.retriable():
                        raise mapped(error, f"topic {topic}, partition {partition} cannot be read")
                    continue
                key, value, written_ms = message.key(), message.value(), message.timestamp()[1]
                counts[partition] += 1
                next_offsets[partition] = cast(int, message.offset()) + 1
                if value is not None:
                    try:
                        verify_sequence(value)
                    except SequenceError as bad:
                        where = Provenance(topic, partition, cast(int, message.offset()), written_ms)
                        if is_of_another_version(value):
                            raise SequenceError(f"{where}: {bad}") from None
                        damaged[partition].append(Damaged(where, key, value, str(bad)))
                        value = None
                if key is not None:
                    writes[partition].append((key, value, written_ms))
            for partition, next_offset in next_offsets.items():
                opened[partition].table.put_many(writes[partition], next_offset)
            for partition in sorted(whole):
                consumer.pause([TopicPartition(topic, partition)])
                finish(partition)
    finally:
        if consumer is not None:
            consumer.close()
            return_freed_memory()
        for table, _ in opened.values():
            table.close()


def ended(messages: Iterable[Message], ends: Mapping[int, int]) -> set[int]:
    """Partitions of which the messages say that they are read to their ends; after a reconnect one may say so twice."""
    return {
        cast(int, message.partition())
        for message in messages
        if (error := message.error()) is not None
        and error.code() == KafkaError._PARTITION_EOF
        and (message.offset() or 0) >= ends[cast(int, message.partition())]
    }


def _settings(kafka: KafkaConfig, topic: str) -> dict[str, object]:
    return kafka.client(
        group_id=readers_group(topic),
        enable_auto_commit=False,
        enable_partition_eof=True,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_wait_max_ms=10,  # the end is noticed by a fetch that finds nothing
        fetch_message_max_bytes=4 << 20,
        queued_max_messages_kbytes=128 << 10,
        fetch_queue_backoff_ms=10,
        fetch_error_backoff_ms=100,
    )
