"""Raw messages that retention removed before ingest read them. Run: pytest tests/integration/test_expired_offsets.py"""

from __future__ import annotations

import re
import signal
import time
import urllib.request
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from schemas.event import encode_engagement
from slipstream.stack.process import free_port
from stream.oracle import decode, read_sequences
from tests.integration.streaming import PARTITIONS, Deployment, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture
def deployment(kafka_bootstrap: str, prefix: str, tmp_path: Path) -> Deployment:
    return Deployment(kafka_bootstrap, prefix, tmp_path)


def events(first: int, n: int) -> list[bytes]:
    now_ms = int(time.time() * 1000)
    return [encode_engagement("u", i, "save", "home", now_ms - 1000 + i) for i in range(first, first + n)]


def remove_before(deployment: Deployment, offsets: dict[int, int], topic: str = "") -> None:
    """As retention would. Of the raw topic, unless another one is named."""
    request = [
        TopicPartition(topic or deployment.names.engagements, partition, offset)
        for partition, offset in offsets.items()
    ]
    for future in deployment.admin.client.delete_records(request).values():
        future.result()


def items_of(deployment: Deployment, user: bytes = b"u") -> list[int]:
    found = decode(read_sequences(deployment.kafka, deployment.names).sequences[user].value)
    assert found is not None
    return sorted(row[1] for row in found[1])


def lost(port: int, what: str = "ingest_expired_messages") -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        (value,) = re.findall(rf"^slipstream_{what}_total (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(value)


def test_what_retention_removed_while_no_worker_ran_is_said_and_counted(deployment: Deployment) -> None:
    with deployment:
        worker = deployment.start("ingest")
        deployment.send(events(0, 10), partition=0)
        deployment.send(events(100, 10), partition=1)
        wait_until("ingest has caught up", lambda: deployment.lag("ingest") == 0)
        assert worker.stop() == 0
        deployment.send(events(10, 30), partition=0)
        deployment.send(events(110, 30), partition=1)
        remove_before(deployment, {0: 25, 1: 7})  # partition 1 loses only what was read
        port = free_port()
        worker = deployment.start("ingest", metrics_port=port)
        deployment.start("sequence")
        deployment.drain()
        assert items_of(deployment) == [*range(10), *range(25, 40), *range(100, 140)]
        assert lost(port) == 15
        said = [line for line in worker.text().splitlines() if "ERROR" in line]
        assert len(said) == 1
        topic = deployment.names.engagements
        assert f"topic {topic}, partition 0: retention removed 15 messages, offsets 10 to 24" in said[0]
        assert worker.stop() == 0
        # It was committed where it goes on, so it is said once.
        again = deployment.start("ingest")
        again.wait_for_partitions()
        deployment.send(events(200, 1), partition=0)
        deployment.drain()
        assert "retention removed" not in again.text()


def test_an_emptied_partition_is_said_once_too(deployment: Deployment) -> None:
    with deployment:
        deployment.send(events(0, 10), partition=2)
        deployment.commit(deployment.names.ingest_group, deployment.names.engagements, {2: 4})
        remove_before(deployment, {2: 10})
        port = free_port()
        worker = deployment.start("ingest", metrics_port=port)
        wait_until("the place is committed", lambda: deployment.lag("ingest") == 0)
        assert lost(port) == 6
        assert worker.stop() == 0
        again = deployment.start("ingest")
        again.wait_for_partitions()
        deployment.start("sequence")
        deployment.send(events(50, 1), partition=2)
        deployment.drain()
        assert items_of(deployment) == [50]
        assert "retention removed" not in again.text()


def test_retention_overtakes_a_worker_that_runs(deployment: Deployment) -> None:
    with deployment:
        port = free_port()
        worker = deployment.start("ingest", metrics_port=port, session_timeout_s=30)
        deployment.start("sequence")
        deployment.send(events(0, 5), partition=3)
        deployment.drain()
        worker.signal(signal.SIGSTOP)
        deployment.send(events(5, 1), partition=3)  # the fetch under way may have its answer,
        time.sleep(2)  # which the broker gives within half a second
        deployment.send(events(6, 20), partition=3)
        remove_before(deployment, {3: 20})
        worker.signal(signal.SIGCONT)
        deployment.drain()
        first = 20 - int(lost(port))
        assert first in (5, 6)
        assert items_of(deployment) == [*range(first), *range(20, 26)]
        assert f"offsets {first} to 19" in worker.text()


def test_a_new_group_begins_at_the_logs_start_and_nothing_counts_as_lost(deployment: Deployment) -> None:
    with deployment:
        for partition in range(PARTITIONS):
            deployment.send(events(10 * partition, 10), partition=partition)
        remove_before(deployment, {0: 3, 1: 10})
        port = free_port()
        worker = deployment.start("ingest", metrics_port=port)
        deployment.start("sequence")
        # Lag counts from 0 where nothing is committed, so look at what arrives.
        wait_until("all has arrived", lambda: sum(deployment.ends(deployment.names.sequences)) > 0)
        wait_until("sequence has caught up", lambda: deployment.lag("sequence") == 0)
        wait_until("the rest too", lambda: items_of(deployment) == [*range(3, 10), *range(20, 40)])
        deployment.send(events(70, 1), partition=1)
        wait_until("an emptied partition is read", lambda: 70 in items_of(deployment))
        assert lost(port) == 0
        assert "ERROR" not in worker.text()


def test_an_offset_behind_the_logs_end_is_said_and_all_is_read(deployment: Deployment) -> None:
    with deployment:
        deployment.send(events(0, 10), partition=0)
        deployment.commit(deployment.names.ingest_group, deployment.names.engagements, {0: 1000})
        port = free_port()
        worker = deployment.start("ingest", metrics_port=port)
        deployment.start("sequence")
        wait_until("it is said", lambda: "offset 1000 is committed, but the log ends at 10" in worker.text())
        wait_until("its place is committed", lambda: sum(deployment.ends(deployment.names.batches)) > 0)
        deployment.drain()
        assert items_of(deployment) == list(range(10))
        assert lost(port) == 0


def test_batches_that_retention_removed_are_said_and_counted(deployment: Deployment) -> None:
    with deployment:
        ingest = deployment.start("ingest")
        worker = deployment.start("sequence")
        deployment.send(events(0, 10))
        deployment.drain()
        assert worker.stop() == 0
        before = deployment.ends(deployment.names.batches)
        deployment.send(events(10, 10))
        wait_until("ingest has caught up", lambda: deployment.lag("ingest") == 0)
        ends = deployment.ends(deployment.names.batches)
        (home,) = [partition for partition in range(PARTITIONS) if ends[partition] > before[partition]]
        remove_before(deployment, {home: ends[home]}, deployment.names.batches)
        port = free_port()
        worker = deployment.start("sequence", metrics_port=port)
        deployment.send(events(20, 10))
        deployment.drain()
        assert items_of(deployment) == [*range(10), *range(20, 30)]
        assert lost(port, "sequence_expired_batches") == ends[home] - before[home]
        where = f"topic {deployment.names.batches}, partition {home}: retention removed"
        assert [where in line for line in worker.text().splitlines() if " ERROR " in line] == [True]
        assert (ingest.stop(), worker.stop()) == (0, 0)
