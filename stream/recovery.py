"""Reads changelog partitions from their beginning into tables, in bulk: what Faust's own recovery does record by record."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

from confluent_kafka import Consumer, KafkaError, TopicPartition

from edge.kafka import KafkaConfig, make, mapped
from schemas.errors import SequenceError, UnavailableError
from schemas.sequence import MAGIC, VERSION, decode_sequence
from stream.dead_letters import Provenance
from stream.store import PartitionTable

_CHUNK = 10_000


class Damaged(NamedTuple):
    """A changelog record that cannot be decoded: it counts as no record."""

    provenance: Provenance
    key: bytes | None
    value: bytes
    error: str


class Loaded(NamedTuple):
    """A partition's table as of the changelog's end. `records` counts what was read."""

    partition: int
    table: PartitionTable
    records: int
    seconds: float
    damaged: list[Damaged]


def load_partitions(
    kafka: KafkaConfig,
    topic: str,
    partitions: Mapping[int, int],
    on_loaded: Callable[[Loaded], None],
    stop: threading.Event,
    stalled_after_s: float,
) -> None:
    """Read committed records up to the given end offsets; calls `on_loaded` for each partition as it is whole.

    The caller has fenced off every other writer of these partitions, so that the ends stay the ends. Blocking: for a thread.

    Args:
        partitions: partition -> its end offset, transaction markers included.
        stop: ends it early, with nothing more loaded.
        stalled_after_s: without progress for so long it gives up.

    Raises:
        SequenceError: a record of another version: this build must not write over it.
        UnavailableError: no progress.
    """
    started_s = time.monotonic()
    tables = {partition: PartitionTable() for partition in partitions}
    counts = dict.fromkeys(partitions, 0)
    damaged: dict[int, list[Damaged]] = {partition: [] for partition in partitions}
    reading = {partition for partition, end in partitions.items() if end}

    def finish(partition: int) -> None:
        seconds = time.monotonic() - started_s
        on_loaded(Loaded(partition, tables.pop(partition), counts[partition], seconds, damaged[partition]))

    for partition in sorted(set(partitions) - reading):
        finish(partition)
    if not reading:
        return
    consumer: Consumer = make(Consumer, _settings(kafka), kafka)
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in sorted(reading)])
        progress_s = time.monotonic()
        while reading and not stop.is_set():
            messages = consumer.consume(_CHUNK, 0.05)
            if messages:
                progress_s = time.monotonic()
            elif time.monotonic() - progress_s > stalled_after_s:
                raise UnavailableError(
                    f"topic {topic}, partitions {sorted(reading)}: nothing could be read for {stalled_after_s:.0f} s"
                )
            for message in messages:
                partition = cast(int, message.partition())
                if partition not in reading:
                    continue  # whole already: its owner writes again, which is not ours to read
                error = message.error()
                if error is not None:
                    if (
                        error.code() == KafkaError._PARTITION_EOF
                        and cast(int, message.offset()) >= partitions[partition]
                    ):
                        reading.discard(partition)
                        consumer.pause([TopicPartition(topic, partition)])
                        finish(partition)
                    elif error.code() != KafkaError._PARTITION_EOF and not error.retriable():
                        raise mapped(error, f"topic {topic}, partition {partition} cannot be read")
                    continue
                counts[partition] += 1
                key, value, written_ms = message.key(), message.value(), message.timestamp()[1]
                if value is not None:
                    try:
                        decode_sequence(value)
                    except SequenceError as bad:
                        where = Provenance(topic, partition, cast(int, message.offset()), written_ms)
                        _refuse_other_version(value, bad, where)
                        damaged[partition].append(Damaged(where, key, value, str(bad)))
                        value = None
                if key is not None:
                    tables[partition].put(key, value, written_ms)
    finally:
        consumer.close()


def _refuse_other_version(value: bytes, error: SequenceError, where: Provenance) -> None:
    if len(value) > 2 and value[:2] == MAGIC and value[2] != VERSION:
        raise SequenceError(f"{where}: {error}") from None


def _settings(kafka: KafkaConfig) -> dict[str, object]:
    return kafka.client(
        group_id="unused",  # librdkafka wants one; nothing is committed and no group is joined
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
