"""Ingest on real Kafka. Run: pytest tests/integration/test_ingest.py"""

from __future__ import annotations

import re
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]

from schemas.batch import decode_batch
from schemas.event import encode_engagement
from slipstream.stack.process import free_port
from stream.partitioner import partitions_of
from stream.topics import RAW_MAX_MESSAGE_BYTES, arrival_is_brokers_time
from tests.integration.streaming import PARTITIONS, Deployment, chunks, random_events, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture
def deployment(kafka_bootstrap: str, prefix: str, tmp_path: Path) -> Deployment:
    return Deployment(kafka_bootstrap, prefix, tmp_path)


def test_partitions_are_those_of_librdkafka(deployment: Deployment) -> None:
    keys = [np.random.default_rng(i).bytes(1 + i % 40) for i in range(500)]
    placed: dict[bytes, int] = {}
    producer = Producer({"bootstrap.servers": deployment.kafka.bootstrap_servers, "partitioner": "murmur2_random"})
    for key in keys:
        producer.produce(
            deployment.names.batches,
            b"",
            key,
            on_delivery=lambda _, m: placed.update({m.key() or b"": m.partition() or 0}),
        )
    producer.flush()
    assert placed == dict(zip(keys, partitions_of(keys, PARTITIONS).tolist(), strict=True))


def test_a_message_as_large_as_the_topic_takes_is_kept(deployment: Deployment) -> None:
    value = b"x" * (RAW_MAX_MESSAGE_BYTES - 1000)
    with deployment:
        deployment.start("ingest")
        deployment.send([value], key=b"k")
        wait_until("ingest has caught up", lambda: deployment.lag("ingest") == 0)
        ((message, headers),) = deployment.dead_letters()
        assert message.value() == value
        assert headers.reason == "too_large"


def test_a_dead_letters_topic_that_is_too_small_keeps_the_place(
    kafka_bootstrap: str, prefix: str, tmp_path: Path
) -> None:
    deployment = Deployment(kafka_bootstrap, prefix, tmp_path)
    admin, topic = deployment.admin.client, deployment.names.dead_letters
    admin.delete_topics([topic])[topic].result()
    small = NewTopic(topic, num_partitions=PARTITIONS, replication_factor=1)  # Kafka's default: 1 MiB

    def made() -> bool:  # a deletion takes a moment
        try:
            admin.create_topics([small])[topic].result()
        except Exception:
            return False
        return True

    wait_until("the small topic is made", made)
    with deployment:
        worker = deployment.start("ingest")
        random = np.random.default_rng(1).bytes(2_000_000)
        deployment.send([random, b"short"])
        wait_until("ingest has caught up", lambda: deployment.lag("ingest") == 0)
        found = {message.value(): headers for message, headers in deployment.dead_letters()}
        assert found.keys() == {None, b"short"}
        assert "2000000 bytes" in found[None].error
        assert worker.stop() == 0


def test_arrival_is_the_brokers_time(deployment: Deployment) -> None:
    assert arrival_is_brokers_time(deployment.kafka, deployment.names.engagements)
    assert not arrival_is_brokers_time(deployment.kafka, deployment.names.batches)
    with deployment:
        deployment.start("ingest")
        before_ms = int(time.time() * 1000)
        deployment.send([encode_engagement("u", 1, "save", "home", before_ms)], timestamp=1)  # a producer's mad clock
        wait_until("ingest has caught up", lambda: deployment.lag("ingest") == 0)
        (message,) = deployment.read(deployment.names.batches)
        batch = decode_batch(message.value() or b"")
        assert before_ms - 1000 <= batch.arrived_ms[0] <= int(time.time() * 1000) + 1000


def test_large_passes_are_split(deployment: Deployment) -> None:
    with deployment:
        deployment.send(random_events(20_000, 3000))
        deployment.start("ingest", max_batch_bytes=4096)
        deployment.start("sequence")
        deployment.drain()
        assert max(len(m.value() or b"") for m in deployment.read(deployment.names.batches)) <= 4096
        assert deployment.mismatches() == []


def messages_read(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        (value,) = re.findall(r"^slipstream_messages_total{.*} (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(value)


def test_sigterm_commits_all_that_was_read(deployment: Deployment) -> None:
    port = free_port()
    with deployment:
        worker = deployment.start("ingest", commit_interval_s=3600, metrics_port=port)
        worker.wait_for_partitions()
        deployment.send(random_events(2000, 50))
        wait_until("all is read", lambda: messages_read(port) == 2000)
        assert deployment.lag("ingest") == 2000, "nothing is committed before its time"
        assert worker.stop() == 0
        assert deployment.lag("ingest") == 0
        again = deployment.start("ingest", metrics_port=port)
        again.wait_for_partitions()
        deployment.send(random_events(1, 1))
        wait_until("it has caught up", lambda: deployment.lag("ingest") == 0)
        assert messages_read(port) == 1, "nothing is read twice"


def test_workers_come_and_go(deployment: Deployment) -> None:
    parts = chunks(random_events(12_000, 500), 6)
    with deployment:
        first = deployment.start("ingest")
        first.wait_for_partitions()
        deployment.send(parts[0])
        second = deployment.start("ingest")
        deployment.send(parts[1])
        second.wait_for_partitions()
        deployment.send(parts[2])
        assert first.stop() == 0
        deployment.send(parts[3])
        third = deployment.start("ingest")
        deployment.send(parts[4])
        second.kill()
        deployment.send(parts[5])
        deployment.start("sequence")
        deployment.drain()
        assert third.process.poll() is None
        assert deployment.mismatches() == []
