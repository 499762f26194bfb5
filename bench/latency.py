"""How long one event takes from its arrival in the raw topic to the committed changelog, at a steady rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
from confluent_kafka import Consumer, KafkaError, TopicPartition
from numpy.typing import NDArray

from bench.events import Workload, histories, raw_events
from bench.path import Lab
from bench.programs import Program, caught_up, metric, owns_partitions, wait_until
from bench.sending import send, steadily
from bench.topics import delete_topics, seed_changelog
from edge.kafka import Admin, KafkaConfig
from schemas.names import Names
from schemas.sequence import DEFAULT_CAPACITY
from slipstream.stack.process import free_port
from stream.offsets import end_offsets
from stream.topics import create_topics

#: Not counted: everything is cold.
_WARM_UP_S = 5.0
_WARM_UP_MS = int(_WARM_UP_S * 1000)


class Latency(NamedTuple):
    """
    Attributes:
        ms: `(n,)`: of each changelog record, from the arrival of the oldest raw event in it (the broker's time) until a reader of
            committed records holds it.
        cores: CPU seconds a second, by process.
    """

    ms: NDArray[np.float64]
    cores: dict[str, float]


def raw_to_changelog(
    lab: Lab, rate: float, seconds: float, users: int, partitions: int = 4, ingest: Mapping[str, object] | None = None
) -> Latency:
    """Sends events at a steady rate, each to another user.

    Args:
        ingest: more fields of IngestConfig.
    """
    names, directory = lab.fresh("latency")
    kafka, admin, port = lab.kafka, Admin(lab.kafka), free_port()
    create_topics(kafka, names, partitions)
    due_s = steadily(rate, seconds + _WARM_UP_S)
    workload = Workload(len(due_s), users)
    first_ms = int(time.time() * 1000) - workload.events
    seed_changelog(kafka, names, partitions, histories(users, DEFAULT_CAPACITY, first_ms))
    keys, values, _, _ = raw_events(workload, first_ms)
    common = {"kafka": kafka.bootstrap_servers, "prefix": names.prefix}
    with ExitStack() as stack:
        programs = [
            stack.enter_context(Program.worker("ingest", {**common, **(ingest or {})}, directory)),
            stack.enter_context(Program.worker("sequence", {**common, "metrics_port": port}, directory)),
        ]
        wait_until(
            "the workers are ready",
            lambda: (
                metric(port, 'slipstream_ready{stage="sequence"}') == 1
                and owns_partitions(admin, names.ingest_group, names.engagements, partitions)
            ),
            programs,
        )
        reader = _Reader(kafka, names, partitions)
        stack.enter_context(reader)
        sent = send(kafka, names.engagements, keys, values, due_s, programs)
        wait_until(
            "all events are in the changelog",
            lambda: (
                caught_up(admin, names.ingest_group, names.engagements)
                and caught_up(admin, names.sequence_app, names.batches)
            ),
            programs,
        )
    delete_topics(admin, [names.engagements, names.batches, names.sequences, names.dead_letters])
    arrived, took = np.array(reader.seen, np.float64).T
    return Latency(took[arrived >= sent.began_ms + _WARM_UP_MS], sent.cores)


class _Reader:
    """Reads the changelog's new records in a thread: when each was held, and its timestamp.

    Attributes:
        seen: (the record's timestamp, milliseconds until it was held).
    """

    def __init__(self, kafka: KafkaConfig, names: Names, partitions: int) -> None:
        self.seen: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._consumer = Consumer(
            kafka.client(
                group_id=f"{names.prefix}.readers",
                enable_auto_commit=False,
                isolation_level="read_committed",
                fetch_wait_max_ms=500,
            )
        )
        where = [(names.sequences, partition) for partition in range(partitions)]
        ends = end_offsets(Admin(kafka), where)
        self._consumer.assign([TopicPartition(topic, partition, ends[topic, partition]) for topic, partition in where])
        self._thread = threading.Thread(target=self._read, name="changelog-reader")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def _read(self) -> None:
        while not self._stop.is_set():
            first = self._consumer.poll(0.1)
            if first is None:
                continue
            messages = [first, *self._consumer.consume(1000, 0)]
            now_ms = time.time() * 1000
            for message in messages:
                error = message.error()
                if error is None:
                    arrived_ms = message.timestamp()[1]
                    self.seen.append((arrived_ms, now_ms - arrived_ms))
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise RuntimeError(error.str())
