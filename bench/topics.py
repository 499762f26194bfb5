"""Filling topics for a measurement, and weighing what was written to them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from confluent_kafka import KafkaException, Producer

from edge.kafka import Admin, KafkaConfig
from schemas.names import Names
from schemas.sequence import Records, pack_sequence
from stream.partitioner import partitions_of

_FLUSH_S = 120.0


@contextmanager
def filled(kafka: KafkaConfig, topic: str, keys: Sequence[bytes], values: Sequence[bytes]) -> Iterator[None]:
    """Writes the messages in one Kafka transaction, keyed as Kafka's own clients do; commits it when the context is left.

    So readers of committed messages meet the whole backlog at once, with everything warm: what they cost can be told from what
    it costs to start them, and nobody has to be stopped meanwhile.
    """
    producer = _producer(kafka, {"transactional.id": f"bench-{topic}"})
    producer.init_transactions(_FLUSH_S)
    producer.begin_transaction()
    _produce(producer, topic, zip(keys, values, strict=True))
    producer.flush(_FLUSH_S)
    yield
    producer.commit_transaction(_FLUSH_S)


def fill(kafka: KafkaConfig, topic: str, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
    """The same, without a transaction."""
    producer = _producer(kafka, {})
    _produce(producer, topic, zip(keys, values, strict=True))
    _flush(producer, topic)


def seed_changelog(
    kafka: KafkaConfig, names: Names, partitions: int, histories: Iterable[tuple[bytes, Records]]
) -> int:
    """Writes users' sequences as the sequence stage would have, before it starts; how many."""
    producer = _producer(kafka, {"compression.type": "zstd"})
    chunk: list[tuple[bytes, bytes]] = []
    count = 0

    def write() -> None:
        homes = partitions_of([key for key, _ in chunk], partitions).tolist()
        for (key, value), home in zip(chunk, homes, strict=True):
            _send(producer, names.sequences, value, key, home)
        chunk.clear()

    for user, records in histories:
        chunk.append((user, pack_sequence(0, records.tobytes())))
        count += 1
        if len(chunk) == 10_000:
            write()
    write()
    _flush(producer, names.sequences)
    return count


def log_bytes(data_dir: Path, topic: str) -> int:
    """Bytes of a topic's log on the disk of the local broker, replicas and indexes not counted."""
    size = 0
    for directory, _, files in os.walk(data_dir):  # passes over what the broker deletes meanwhile
        name, _, partition = Path(directory).name.rpartition("-")
        if name == topic and partition.isdigit():
            for file in files:
                if file.endswith(".log"):
                    with suppress(FileNotFoundError):
                        size += (Path(directory) / file).stat().st_size
    return size


def delete_topics(admin: Admin, topics: Iterable[str]) -> None:
    """Gives the disk back; a topic that is not there is no error."""
    for future in admin.client.delete_topics(list(topics)).values():
        try:
            future.result()
        except KafkaException:
            continue


def _producer(kafka: KafkaConfig, more: dict[str, str]) -> Producer:
    return Producer(
        {
            **kafka.client(linger_ms=20, compression_type="lz4", batch_size=1 << 20),
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 1 << 18,
            **more,
        }
    )


def _produce(producer: Producer, topic: str, messages: Iterable[tuple[bytes, bytes]]) -> None:
    for number, (key, value) in enumerate(messages):
        _send(producer, topic, value, key, -1)
        if not number % 10_000:
            producer.poll(0)


def _send(producer: Producer, topic: str, value: bytes, key: bytes, partition: int) -> None:
    while True:
        try:
            producer.produce(topic, value, key, partition=partition)
            return
        except BufferError:
            producer.poll(0.1)


def _flush(producer: Producer, topic: str) -> None:
    left = producer.flush(_FLUSH_S)
    if left:
        raise RuntimeError(f"topic {topic}: {left} messages were not delivered within {_FLUSH_S:.0f} s")
