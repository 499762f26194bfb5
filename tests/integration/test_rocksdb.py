"""The sequence stage with its tables in RocksDB, on real Kafka: restarts, rebalances, kill -9, and what makes a table anew.

Run: pytest tests/integration/test_rocksdb.py
"""

from __future__ import annotations

import re
import resource
import signal
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType  # type: ignore[attr-defined]
from rocksdict import Options, Rdict

from edge.kafka import topic_id
from schemas.event import encode_engagement, encode_forget
from schemas.sequence_store import KEPT_KEY, Kept
from stream.oracle import read_sequences
from stream.store_rocksdb import Memory, RocksTable
from stream.topics import create_topics
from tests.integration.streaming import PARTITIONS, Deployment, Worker, chunks, random_events, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture
def deployment(kafka_bootstrap: str, prefix: str, tmp_path: Path) -> Deployment:
    return Deployment(kafka_bootstrap, prefix, tmp_path)


def start(deployment: Deployment, directory: str = "a", **more: Any) -> Worker:
    return deployment.start("sequence", store="rocksdb", data_dir=str(deployment.directory / directory), **more)


def loads(worker: Worker) -> list[tuple[int, int, int]]:
    """(partition, records, from offset) of every load that the worker speaks of."""
    found = re.findall(r"partition (\d+): .* from (\d+) changelog records, read from offset (\d+)", worker.text())
    return [(int(partition), int(records), int(offset)) for partition, records, offset in found]


def loaded_all(worker: Worker) -> list[tuple[int, int, int]]:
    wait_until(f"{worker.log.stem} has loaded", lambda: {p for p, _, _ in loads(worker)} == set(range(PARTITIONS)))
    return loads(worker)


def database(deployment: Deployment, partition: int, directory: str = "a") -> Path:
    return deployment.directory / directory / "rocksdb" / f"{deployment.names.sequences}-{partition}"


def blobs(deployment: Deployment) -> set[Path]:
    """Where RocksDB wrote long values to."""
    return {path for partition in range(PARTITIONS) for path in database(deployment, partition).glob("*.blob")}


def records_of(deployment: Deployment) -> list[int]:
    """Committed records of each changelog partition."""
    counts = [0] * PARTITIONS
    for message in deployment.read(deployment.names.sequences):
        counts[message.partition() or 0] += 1
    return counts


def test_a_restart_reads_only_what_was_written_meanwhile(deployment: Deployment) -> None:
    parts = chunks(random_events(20_000, 1000), 4)
    with deployment:
        deployment.start("ingest")
        first = start(deployment)
        deployment.send(parts[0])
        deployment.drain()
        assert first.stop() == 0
        before = records_of(deployment)

        # Nothing was written meanwhile.
        again = start(deployment)
        assert [records for _, records, _ in loaded_all(again)] == [0] * PARTITIONS
        assert all(offset > 0 for _, _, offset in loads(again))
        assert again.stop() == 0

        # Another worker, with another directory, wrote.
        other = start(deployment, "b")
        assert sorted((p, n) for p, n, _ in loaded_all(other)) == list(enumerate(before))
        deployment.send(parts[1])
        deployment.drain()
        assert other.stop() == 0
        after = records_of(deployment)

        back = start(deployment)
        tails = {partition: records for partition, records, _ in loaded_all(back)}
        assert [tails[p] for p in range(PARTITIONS)] == [a - b for a, b in zip(after, before, strict=True)]
        deployment.send(parts[2])
        deployment.drain()
        assert deployment.mismatches() == []
        # What is known already changes nothing, so nothing is written.
        written = deployment.ends(deployment.names.sequences)
        deployment.send([*parts[0], *parts[1], *parts[2]])
        deployment.drain()
        assert deployment.ends(deployment.names.sequences) == written
        assert back.stop() == 0
        assert "made anew" not in back.text()


def test_partitions_go_to_another_worker_and_come_back(deployment: Deployment) -> None:
    parts = chunks(random_events(40_000, 1500), 4)
    with deployment:
        deployment.start("ingest")
        first = start(deployment)
        deployment.send(parts[0])
        deployment.drain()
        second = start(deployment, "b")
        deployment.send(parts[1])
        second.wait_for_partitions()
        deployment.send(parts[2])
        deployment.drain()
        assert deployment.mismatches() == []
        known = len(loads(first))
        assert second.stop() == 0
        deployment.send(parts[3])
        deployment.drain()
        wait_until("the first has them back", lambda: len(loads(first)) > known)
        assert all(offset > 0 for _, _, offset in loads(first)[known:])
        assert deployment.mismatches() == []
        assert first.stop() == 0
        assert "made anew" not in first.text()


def events_of_everybody(nth: int, users: int = 600) -> list[bytes]:
    """Some events of each of many users: all their sequences, which grow long, are written anew."""
    at_ms = int(time.time() * 1000) + 10 * nth
    return [encode_engagement(f"user-{user}", i, "save", "home", at_ms + i) for user in range(users) for i in range(10)]


def test_kill_9_mid_stream(deployment: Deployment) -> None:
    """The write-ahead log is off: what was not on disk is lost, values and kept offset together."""
    with deployment:
        deployment.start("ingest")
        sequence = start(deployment, store_memory_bytes=16 << 20)  # small: it flushes often
        numbers = count()
        for _ in range(3):
            flushed = blobs(deployment)
            while len(blobs(deployment) - flushed) <= PARTITIONS:  # a partition has two: the first is complete
                number = next(numbers)
                assert number < 300
                deployment.send(events_of_everybody(number))
                time.sleep(0.05)
            deployment.send(events_of_everybody(next(numbers)))
            sequence.kill()
            sequence = start(deployment, store_memory_bytes=16 << 20)
            assert max(offset for _, _, offset in loaded_all(sequence)) > 0, "what was on disk was gone on with"
        deployment.drain(90)
        assert deployment.mismatches() == []
        sequence.kill()
        # What the database says now, with the changelog's rest, is the changelog.
        last = start(deployment)
        loaded_all(last)
        assert last.stop() == 0
        assert "made anew" not in "".join(worker.text() for worker in deployment.workers)
        found = read_sequences(deployment.kafka, deployment.names).sequences
        kept: dict[bytes, bytes] = {}
        for partition in range(PARTITIONS):
            table = RocksTable(database(deployment, partition), Memory(16 << 20))
            kept |= dict(table.items())
            table.close()
        assert kept == {user: sequence.value for user, sequence in found.items()}


def test_a_zombie_is_fenced_and_its_tables_are_gone_on_with(deployment: Deployment) -> None:
    with deployment:
        deployment.send(random_events(60_000, 300, forget_share=0))
        deployment.start("ingest", max_poll_messages=50)  # many small batches
        wait_until("ingest has caught up", lambda: deployment.lag("ingest") == 0)
        zombie = start(deployment)
        wait_until("it is in full flow", lambda: sum(deployment.ends(deployment.names.sequences)) > 0)
        zombie.signal(signal.SIGSTOP)
        assert deployment.lag("sequence") > 0, "it was stopped in the midst of it"
        heir = start(deployment, "b")
        wait_until("the heir has caught up", lambda: deployment.lag("sequence") == 0, 90)
        deployment.send(random_events(1000, 300, seed=1))
        deployment.drain()
        zombie.signal(signal.SIGCONT)
        assert zombie.wait(60) == 7
        deployment.drain()
        assert deployment.mismatches() == []
        assert heir.stop() == 0
        risen = start(deployment)
        loaded_all(risen)
        deployment.send(random_events(2000, 300, seed=2))
        deployment.drain()
        assert deployment.mismatches() == []
        assert risen.stop() == 0


def rewrite_kept(directory: Path, change: Callable[[Kept], Kept]) -> None:
    table = RocksTable(directory, Memory(16 << 20))
    kept = table.kept()
    assert kept is not None
    table.begin(change(kept))
    table.close()


def newer_layout(directory: Path) -> None:
    options = Options(raw_mode=True)
    opened = Rdict(str(directory), options, {"default": options})
    value = bytearray(opened[KEPT_KEY])
    value[2] += 1
    opened[KEPT_KEY] = bytes(value)
    opened.close()


def test_what_makes_a_table_anew(deployment: Deployment) -> None:
    parts = chunks(random_events(10_000, 700), 2)
    with deployment:
        deployment.start("ingest")
        first = start(deployment)
        deployment.send(parts[0])
        deployment.drain()
        assert first.stop() == 0
        rewrite_kept(database(deployment, 0), lambda kept: kept._replace(topic_id=b"x" * 16))
        rewrite_kept(database(deployment, 1), lambda kept: kept._replace(next_offset=1 << 40))
        newer_layout(database(deployment, 2))
        (database(deployment, 3) / "CURRENT").write_text("nonsense")
        second = start(deployment)
        assert sorted(loaded_all(second)) == [(p, n, 0) for p, n in enumerate(records_of(deployment))]
        reasons = dict(re.findall(r"partition (\d): .* is made anew from the changelog: (.*)", second.text()))
        assert "deleted and made anew" in reasons["0"]
        assert "but the changelog ends at" in reasons["1"]
        assert "its layout has version 2" in reasons["2"]
        assert "Corruption" in reasons["3"]
        deployment.send(parts[1])
        deployment.drain()
        assert deployment.mismatches() == []
        assert second.stop() == 0


def test_a_table_is_made_anew_when_tombstones_may_be_gone(deployment: Deployment) -> None:
    with deployment:
        deployment.start("ingest")
        first = start(deployment)
        deployment.send(random_events(5000, 700))
        deployment.drain()
        assert first.stop() == 0
        option = ConfigEntry("delete.retention.ms", "1000", incremental_operation=AlterConfigOpType.SET)
        topic = ConfigResource(ResourceType.TOPIC, deployment.names.sequences, incremental_configs=[option])
        deployment.admin.client.incremental_alter_configs([topic])[topic].result()
        # Something is written while it is away: else there is nothing that it could miss.
        other = deployment.start("sequence")
        deployment.send(random_events(5000, 700, seed=5))
        deployment.drain()
        assert other.stop() == 0
        second = start(deployment)
        assert sorted(loaded_all(second)) == [(p, n, 0) for p, n in enumerate(records_of(deployment))]
        assert second.text().count("tombstones of longer than 0 s ago may be gone") == PARTITIONS
        deployment.send(random_events(5000, 700, seed=6))
        deployment.drain()
        assert deployment.mismatches() == []
        assert second.stop() == 0


def test_a_changelog_that_was_deleted_and_made_again(deployment: Deployment) -> None:
    with deployment:
        deployment.start("ingest")
        first = start(deployment)
        deployment.send(random_events(10_000, 700))
        deployment.drain()
        assert first.stop() == 0
        topic, old = deployment.names.sequences, topic_id(deployment.kafka, deployment.names.sequences)
        deployment.admin.client.delete_topics([topic])[topic].result()
        wait_until(
            "it is made anew", lambda: topic in create_topics(deployment.kafka, deployment.names, PARTITIONS).created
        )
        assert topic_id(deployment.kafka, topic) != old
        deployment.commit(deployment.names.sequence_app, deployment.names.batches, dict.fromkeys(range(PARTITIONS), 0))
        second = start(deployment)
        loaded_all(second)
        deployment.drain()
        assert "was deleted and made anew since" in second.text()
        assert deployment.mismatches() == []
        assert second.stop() == 0


def test_damage_that_shows_while_it_runs_ends_it_and_the_next_start_makes_the_table_anew(
    deployment: Deployment,
) -> None:
    now_ms = int(time.time() * 1000)
    with deployment:
        deployment.start("ingest")
        first = start(deployment)
        deployment.send([encode_engagement(f"u{n}", 1, "save", "home", now_ms) for n in range(8000)])
        deployment.drain()
        assert first.stop() == 0
        for file in database(deployment, 2).glob("*.sst"):
            content = bytearray(file.read_bytes())
            if len(content) > 8000:
                content[2000:6000] = bytes(4000)
                file.write_bytes(content)
        second = start(deployment)
        deployment.send([encode_engagement(f"u{n}", 2, "save", "home", now_ms) for n in range(8000)])
        assert second.wait(60) == 11
        assert "it makes the table anew from the changelog" in second.text()
        assert "Traceback" not in second.text()
        third = start(deployment)
        deployment.drain()
        assert re.search(r"partition 2: .* is made anew from the changelog: Corruption", third.text())
        assert third.text().count("is made anew") == 1
        assert deployment.mismatches() == []
        assert third.stop() == 0


def test_a_disk_that_takes_no_more_ends_the_worker_with_nothing_acknowledged(deployment: Deployment) -> None:
    parts = chunks(random_events(20_000, 4000), 2)
    with deployment:
        deployment.start("ingest")
        worker = start(deployment, store_memory_bytes=16 << 20)
        deployment.send(parts[0])
        deployment.drain()
        # As of now every write that makes a file larger than this fails.
        resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (64 << 10, 64 << 10))
        deployment.send(parts[1])
        many = [
            encode_engagement(f"u{n}", i, "save", "home", int(time.time() * 1000) + i)
            for n in range(5000)
            for i in range(60)
        ]
        deployment.send(many)
        assert worker.wait(90) == 11
        assert "make room, or repair the disk" in worker.text()
        assert "Traceback" not in worker.text()
        wait_until("ingest has caught up", lambda: deployment.lag("ingest") == 0)
        assert deployment.lag("sequence") > 0
        second = start(deployment)
        deployment.drain(90)
        assert deployment.mismatches() == []
        assert second.stop() == 0


def test_forgotten_users_markers_survive_a_restart_and_expire(deployment: Deployment) -> None:
    now_ms = int(time.time() * 1000)
    events = [encode_engagement("u", i, "save", "home", now_ms - 1000 + i) for i in range(5)]
    with deployment:
        deployment.start("ingest")
        worker = start(deployment)
        deployment.send([*events, encode_engagement("other", 1, "save", "home", now_ms)])
        deployment.send([encode_forget("u", now_ms)])
        deployment.drain()
        assert worker.stop() == 0
        worker = start(deployment)
        deployment.send(events)  # late duplicates
        deployment.drain()
        assert deployment.mismatches() == []
        assert worker.stop() == 0
        last = start(deployment, forget_marker_retention_s=0.5)
        wait_until(
            "the marker is gone",
            lambda: read_sequences(deployment.kafka, deployment.names).sequences.keys() == {b"other"},
        )
        assert sum(records for _, records, _ in loads(last)) == 0, "it knew of the marker by itself"
        assert last.stop() == 0


def test_two_workers_cannot_share_a_directory(deployment: Deployment) -> None:
    with deployment:
        start(deployment).wait_for_partitions()
        second = start(deployment)
        assert second.wait() == 2
        assert "belongs to a running worker" in second.text()


def test_a_directory_has_to_be_named(deployment: Deployment) -> None:
    with deployment:
        worker = deployment.start("sequence", store="rocksdb")
        assert worker.wait() == 2
        assert "sequence_dir" in worker.text()
