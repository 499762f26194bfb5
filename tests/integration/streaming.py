"""A deployment of the stream stages for tests: topics of its own, workers in processes of their own, the oracle at the end.

As a program, `python -m tests.integration.streaming STAGE JSON`, it is one worker.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Message, Producer, TopicPartition

from edge.kafka import Admin, KafkaConfig
from schemas.errors import SlipstreamError, UnavailableError
from schemas.event import ParserConfig, encode_engagement, encode_forget
from schemas.names import Names
from stream.dead_letters import DeadLetterHeaders, read_dead_letter_headers
from stream.ingest import IngestConfig, run_ingest
from stream.lag import group_lag
from stream.offsets import end_offsets
from stream.oracle import Mismatch, compare, read_raw, read_sequences, rebuild
from stream.sequence import SequenceConfig, run_sequence
from stream.topics import create_topics

PARTITIONS = 4
ROOT = Path(__file__).parents[2]


class Worker:
    """A stage's process."""

    def __init__(self, stage: str, kafka: str, prefix: str, log: Path, overrides: dict[str, Any]) -> None:
        self.log = log
        options = json.dumps({"kafka": kafka, "prefix": prefix, **overrides})
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.streaming", stage, options],
                cwd=ROOT,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_s: float = 30) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = 30) -> int:
        return self.process.wait(timeout_s)

    def wait_for_partitions(self) -> None:
        """Until it has got some: it runs, and has its signal handlers."""
        wait_until(f"{self.log.stem} has partitions", lambda: re.search(r"got \[\d", self.text()) is not None)

    def text(self) -> str:
        return self.log.read_text(errors="replace")


class Deployment:
    """Topics, workers and clients under one prefix."""

    def __init__(self, kafka_bootstrap: str, prefix: str, directory: Path, partitions: int = PARTITIONS) -> None:
        self.kafka = KafkaConfig(kafka_bootstrap)
        self.names = Names(prefix)
        self.directory = directory
        self.admin = Admin(self.kafka)
        self.workers: list[Worker] = []
        self.producer = Producer(
            {"bootstrap.servers": kafka_bootstrap, "log_level": 0, "linger.ms": 5, "message.max.bytes": 20 << 20}
        )
        create_topics(self.kafka, self.names, partitions)

    def __enter__(self) -> Deployment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill()
        if error is not None:  # pytest shows it with the failure
            for log in sorted(self.directory.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}", file=sys.stderr)

    def start(self, stage: str, **overrides: Any) -> Worker:
        log = self.directory / f"{stage}-{len(self.workers)}.log"
        worker = Worker(stage, self.kafka.bootstrap_servers, self.names.prefix, log, overrides)
        self.workers.append(worker)
        return worker

    def send(self, values: Iterable[bytes | None], topic: str | None = None, **more: Any) -> None:
        for value in values:
            while True:
                try:
                    self.producer.produce(topic or self.names.engagements, value, **more)
                    break
                except BufferError:
                    self.producer.poll(0.1)
        assert self.producer.flush(30) == 0

    def lag(self, stage: str) -> int:
        group, topic = {
            "ingest": (self.names.ingest_group, self.names.engagements),
            "sequence": (self.names.sequence_app, self.names.batches),
        }[stage]
        try:
            return sum(group_lag(self.admin, group, [topic]).values())
        except UnavailableError:  # the broker has just come back
            return -1

    def drain(self, timeout_s: float = 60) -> None:
        """Until both stages have caught up."""
        wait_until("ingest has caught up", lambda: self.lag("ingest") == 0, timeout_s)
        wait_until("sequence has caught up", lambda: self.lag("sequence") == 0, timeout_s)

    def ends(self, topic: str, partitions: int = PARTITIONS) -> list[int]:
        return list(end_offsets(self.admin, [(topic, p) for p in range(partitions)]).values())

    def mismatches(self, capacity: int = 256, rules: ParserConfig | None = None) -> list[Mismatch]:
        """What the oracle finds; call it when all has drained."""
        rebuilt = rebuild(read_raw(self.kafka, self.names), rules or ParserConfig(), capacity)
        assert rebuilt.sequences, "nothing was sent"
        return compare(rebuilt, read_sequences(self.kafka, self.names))

    def commit(self, group: str, topic: str, next_offsets: dict[int, int]) -> None:
        """As a member of the group would."""
        partitions = [TopicPartition(topic, partition, offset) for partition, offset in next_offsets.items()]
        request = [ConsumerGroupTopicPartitions(group, partitions)]
        self.admin.client.alter_consumer_group_offsets(request)[group].result()

    def read(self, topic: str) -> list[Message]:
        """All committed messages of a topic."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.kafka.bootstrap_servers,
                "group.id": "unused",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
                "log_level": 0,
            }
        )
        reading = set(range(len(self.ends(topic))))
        consumer.assign([TopicPartition(topic, p, 0) for p in reading])
        messages = []
        deadline = time.monotonic() + 30
        while reading:
            assert time.monotonic() < deadline
            for message in consumer.consume(1000, 0.1):
                if message.error() is None:
                    messages.append(message)
                else:
                    reading.discard(message.partition() or 0)
        consumer.close()
        return messages

    def dead_letters(self) -> list[tuple[Message, DeadLetterHeaders]]:
        letters = []
        for message in self.read(self.names.dead_letters):
            headers = read_dead_letter_headers(message.headers() or [])  # type: ignore[arg-type]
            assert headers is not None
            letters.append((message, headers))
        return letters


def is_ready(stage: str, metrics_port: int) -> bool:
    """What the stage tells Prometheus."""
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=5) as response:
        return f'slipstream_ready{{stage="{stage}"}} 1.0' in response.read().decode()


def wait_until(what: str, condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"after {timeout_s:.0f} s still not: {what}"
        time.sleep(0.1)


def random_events(n: int, users: int, seed: int = 0, forget_share: float = 0.002) -> list[bytes]:
    """Raw messages with ties, duplicates, late events and forget requests, most of them of few users."""
    rng = np.random.default_rng(seed)
    now_ms = int(time.time() * 1000) - n
    who = (rng.zipf(1.3, n) % users).tolist()
    late_ms = np.where(rng.random(n) < 0.05, rng.integers(0, 50_000, n), 0).tolist()
    items = rng.integers(0, 1 << 40, n).tolist()
    kinds = rng.random(n).tolist()
    values: list[bytes] = []
    for i in range(n):
        user = f"user-{seed}-{who[i]}"
        if kinds[i] < forget_share:
            values.append(encode_forget(user, now_ms + i - 1000))
        elif kinds[i] < 0.05 and values:
            values.append(values[int(items[i] % len(values))])
        else:
            values.append(encode_engagement(user, items[i], "save", "home", now_ms + i // 3 - late_ms[i]))
    return values


def chunks(values: Sequence[bytes], n: int) -> list[Sequence[bytes]]:
    size = -(-len(values) // n)
    return [values[i : i + size] for i in range(0, len(values), size)]


def main(stage: str, options: dict[str, Any]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(name)s %(levelname)s %(message)s")
    kafka, names = KafkaConfig(options.pop("kafka")), Names(options.pop("prefix"))
    try:
        if stage == "ingest":
            options["parser"] = msgspec.convert(options.get("parser", {}), ParserConfig)
            run_ingest(IngestConfig(kafka, names, **options))
        else:
            if "data_dir" in options:
                options["data_dir"] = Path(options["data_dir"])
            run_sequence(SequenceConfig(kafka, names, **options))
    except SlipstreamError as error:
        logging.error("%s", error)
        return error.exit_code
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], json.loads(sys.argv[2])))
