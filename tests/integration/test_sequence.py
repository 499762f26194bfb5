"""The sequence stage on real Kafka. Run: pytest tests/integration/test_sequence.py"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Producer

from schemas.batch import Batch, encode_batch
from schemas.event import encode_engagement, encode_forget
from schemas.sequence import RECORD, Sequence, decode_sequence, encode_sequence
from stream.lag import group_lag
from stream.oracle import read_sequences
from stream.partitioner import partitions_of
from tests.integration.streaming import Deployment, chunks, random_events, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture
def deployment(kafka_bootstrap: str, prefix: str, tmp_path: Path) -> Deployment:
    return Deployment(kafka_bootstrap, prefix, tmp_path)


def batch_for(user: bytes, times_ms: list[int], arrived_ms: int = 1000, floor_ms: int = 0) -> bytes:
    records = np.zeros(len(times_ms), RECORD)
    records["timestamp_ms"] = times_ms
    return encode_batch(
        Batch([user], np.array([arrived_ms]), np.array([floor_ms]), np.array([len(times_ms)], np.uint32), records)
    )


def send_batch(deployment: Deployment, user: bytes, value: bytes | None) -> None:
    deployment.send([value], deployment.names.batches, partition=int(partitions_of([user], 4)[0]))


def test_from_raw_events_to_the_changelog_and_on_after_a_restart(deployment: Deployment) -> None:
    values = random_events(30_000, 2000)
    parts = chunks(values, 3)
    with deployment:
        deployment.start("ingest")
        first = deployment.start("sequence")
        deployment.send(parts[0])
        deployment.drain()
        assert deployment.mismatches() == []
        deployment.send(parts[1])
        assert first.stop() == 0
        second = deployment.start("sequence")  # has to load what the first one wrote
        deployment.send(parts[2])
        deployment.drain()
        assert deployment.mismatches() == []
        assert "users from" in second.text()
        # What is known already changes nothing, so nothing is written.
        written = deployment.ends(deployment.names.sequences)
        deployment.send(values)
        deployment.drain()
        assert deployment.ends(deployment.names.sequences) == written
        assert second.stop() == 0


def test_capacity_bounds_sequences(deployment: Deployment) -> None:
    with deployment:
        deployment.start("ingest")
        deployment.start("sequence", capacity=10)
        deployment.send(random_events(5000, 100))
        deployment.drain()
        assert deployment.mismatches(10) == []
        found = read_sequences(deployment.kafka, deployment.names).sequences.values()
        assert max(len(decode_sequence(f.value).records) for f in found) == 10


def test_the_changelogs_timestamp_is_the_arrival(deployment: Deployment) -> None:
    now_ms = int(time.time() * 1000)
    with deployment:
        deployment.start("sequence")
        for n, ago_ms in enumerate((9000, 1000), 1):
            event_ms, arrived_ms = now_ms + n, now_ms - ago_ms
            send_batch(deployment, b"u", batch_for(b"u", [event_ms], arrived_ms))
            wait_until("sequence has caught up", lambda: deployment.lag("sequence") == 0)
            message = deployment.read(deployment.names.sequences)[-1]
            assert message.timestamp()[1] == arrived_ms
            assert len(decode_sequence(message.value() or b"").records) == n


def test_forgotten_users_stay_forgotten_and_their_markers_expire(deployment: Deployment) -> None:
    now_ms = int(time.time() * 1000)
    events = [encode_engagement("u", i, "save", "home", now_ms - 1000 + i) for i in range(5)]
    with deployment:
        deployment.start("ingest")
        worker = deployment.start("sequence")
        deployment.send([*events, encode_engagement("other", 1, "save", "home", now_ms)])
        deployment.drain()
        deployment.send([encode_forget("u", now_ms)])
        deployment.drain()
        deployment.send(events)  # late duplicates
        deployment.drain()
        value = read_sequences(deployment.kafka, deployment.names).sequences[b"u"].value
        assert decode_sequence(value).forgotten_before_ms == now_ms
        assert len(decode_sequence(value).records) == 0
        assert worker.stop() == 0
        # A worker that finds the marker in the changelog removes it when its time has come.
        deployment.start("sequence", forget_marker_retention_s=0.5)
        wait_until(
            "the marker is gone",
            lambda: read_sequences(deployment.kafka, deployment.names).sequences.keys() == {b"other"},
        )
        tombstones = [m.key() for m in deployment.read(deployment.names.sequences) if m.value() is None]
        assert tombstones == [b"u"]


def changelog_producer(deployment: Deployment) -> Producer:
    return Producer({"bootstrap.servers": deployment.kafka.bootstrap_servers, "partitioner": "murmur2_random"})


def test_a_damaged_changelog_record_goes_to_the_dead_letters(deployment: Deployment) -> None:
    good = encode_sequence(Sequence(0, np.ones(1, RECORD)))
    producer = changelog_producer(deployment)
    producer.produce(deployment.names.sequences, good, b"good")
    producer.produce(deployment.names.sequences, good[:-1], b"bad")
    producer.flush()
    with deployment:
        worker = deployment.start("sequence")
        wait_until("the dead letter is there", lambda: sum(deployment.ends(deployment.names.dead_letters)) > 0)
        ((message, headers),) = deployment.dead_letters()
        assert (message.key(), message.value(), headers.reason) == (b"bad", good[:-1], "bad_sequence")
        send_batch(deployment, b"bad", batch_for(b"bad", [7]))
        send_batch(deployment, b"good", batch_for(b"good", [7]))
        wait_until("sequence has caught up", lambda: deployment.lag("sequence") == 0)
        found = read_sequences(deployment.kafka, deployment.names).sequences
        assert len(decode_sequence(found[b"good"].value).records) == 2
        assert len(decode_sequence(found[b"bad"].value).records) == 1
        assert worker.stop() == 0


def test_a_changelog_of_a_newer_version_is_not_written_over(deployment: Deployment) -> None:
    newer = bytearray(encode_sequence(Sequence(0, np.ones(1, RECORD))))
    newer[2] = 2
    producer = changelog_producer(deployment)
    producer.produce(deployment.names.sequences, bytes(newer), b"u")
    producer.flush()
    with deployment:
        send_batch(deployment, b"u", batch_for(b"u", [7]))
        worker = deployment.start("sequence")
        assert worker.wait() == 4
        assert "sequence version 2, this build reads 1" in worker.text()
        assert deployment.lag("sequence") == 1


def test_two_workers_cannot_share_a_data_directory(deployment: Deployment, tmp_path: Path) -> None:
    with deployment:
        first = deployment.start("sequence", data_dir=str(tmp_path / "data"))
        first.wait_for_partitions()
        second = deployment.start("sequence", data_dir=str(tmp_path / "data"))
        assert second.wait() == 2
        assert "belongs to a running worker" in second.text()
        first.kill()
        third = deployment.start("sequence", data_dir=str(tmp_path / "data"))
        third.wait_for_partitions()


def test_missing_and_unequal_topics_stop_the_start(deployment: Deployment) -> None:
    with deployment:
        elsewhere = Deployment(deployment.kafka.bootstrap_servers, f"{deployment.names.prefix}x", deployment.directory)
        topic = elsewhere.names.sequences
        elsewhere.admin.client.delete_topics([topic])[topic].result()
        worker = elsewhere.start("sequence")
        assert worker.wait() == 5
        assert f"has no topic {topic}" in worker.text()


def test_lag_does_not_count_markers(deployment: Deployment) -> None:
    with deployment:
        deployment.start("ingest")
        deployment.start("sequence")
        deployment.send(random_events(500, 20))
        deployment.drain()
        topic, group = deployment.names.sequences, "reader"
        lag = group_lag(deployment.admin, group, [topic], deployment.kafka)
        messages = deployment.read(topic)
        assert sum(lag.values()) >= len(messages), "nothing is committed yet"
        last: dict[int, int] = {m.partition() or 0: m.offset() or 0 for m in messages}
        deployment.commit(group, topic, {partition: offset + 1 for partition, offset in last.items()})
        assert sum(group_lag(deployment.admin, group, [topic]).values()) >= len(last), "the markers"
        assert set(group_lag(deployment.admin, group, [topic], deployment.kafka).values()) == {0}
        deployment.commit(group, topic, dict(last))
        assert sum(group_lag(deployment.admin, group, [topic], deployment.kafka).values()) == len(last)
