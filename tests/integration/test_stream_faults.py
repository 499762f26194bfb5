"""Killing, stopping and starving the stream stages on real Kafka: the oracle finds nothing lost and nothing different.

Run: pytest tests/integration/test_stream_faults.py
"""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from slipstream.stack import running, start_part, stop_part
from slipstream.stack.process import free_port
from stream.topics import create_topics
from tests.integration.streaming import PARTITIONS, Deployment, chunks, is_ready, random_events, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture
def deployment(kafka_bootstrap: str, prefix: str, tmp_path: Path) -> Deployment:
    return Deployment(kafka_bootstrap, prefix, tmp_path)


def test_kill_9_of_both_stages_mid_stream(deployment: Deployment) -> None:
    parts = chunks(random_events(60_000, 1500), 3)
    with deployment:
        ingest, sequence = deployment.start("ingest"), deployment.start("sequence")
        for part in parts[:2]:
            deployment.send(part)
            written = sum(deployment.ends(deployment.names.sequences))
            wait_until("it is in full flow", lambda: sum(deployment.ends(deployment.names.sequences)) > written)  # noqa: B023
            ingest.kill()
            sequence.kill()
            ingest, sequence = deployment.start("ingest"), deployment.start("sequence")
        deployment.send(parts[2])
        deployment.drain(90)
        assert deployment.mismatches() == []
        assert (ingest.stop(), sequence.stop()) == (0, 0)


def test_a_zombie_is_fenced_and_loses_nothing(deployment: Deployment) -> None:
    """The directed case: stopped with batches in its buffers until another worker has taken its partitions over and emptied
    them, then continued. Unfenced, its writes of stale sequences would be the newest ones."""
    values = random_events(60_000, 300, forget_share=0)
    with deployment:
        # Everything is waiting, so that the buffers are full when it stops.
        deployment.send(values)
        ingest = deployment.start("ingest", max_poll_messages=50)  # many small batches
        wait_until("ingest has caught up", lambda: deployment.lag("ingest") == 0)
        zombie = deployment.start("sequence")
        wait_until("it is in full flow", lambda: sum(deployment.ends(deployment.names.sequences)) > 0)
        zombie.signal(signal.SIGSTOP)
        assert deployment.lag("sequence") > 0, "it was stopped in the midst of it"
        heir = deployment.start("sequence")
        wait_until("the heir has caught up", lambda: deployment.lag("sequence") == 0, 90)
        deployment.send(random_events(1000, 300, seed=1))
        deployment.drain()
        zombie.signal(signal.SIGCONT)
        assert zombie.wait(60) == 7
        assert "another worker owns it now" in zombie.text()
        deployment.drain()
        assert deployment.mismatches() == []
        assert (ingest.stop(), heir.stop()) == (0, 0)


def test_sequence_workers_come_and_go(deployment: Deployment) -> None:
    parts = chunks(random_events(30_000, 1500), 5)
    with deployment:
        deployment.start("ingest")
        first = deployment.start("sequence")
        first.wait_for_partitions()
        deployment.send(parts[0])
        second = deployment.start("sequence")
        deployment.send(parts[1])
        second.wait_for_partitions()
        deployment.send(parts[2])
        deployment.drain()
        assert deployment.mismatches() == []
        assert first.stop() == 0
        deployment.send(parts[3])
        third = deployment.start("sequence")
        deployment.send(parts[4])
        third.wait_for_partitions()
        second.kill()
        deployment.drain(90)
        assert deployment.mismatches() == []
        assert third.stop() == 0


def test_the_broker_goes_and_comes_back(prefix: str, tmp_path: Path) -> None:
    with running(tmp_path / "stack") as stack, Deployment(stack.kafka_bootstrap, prefix, tmp_path) as deployment:
        ports = {"ingest": (port := free_port()), "sequence": free_port(avoid=[port])}
        ingest, sequence = (deployment.start(stage, metrics_port=port) for stage, port in ports.items())
        values = random_events(60_000, 1000)
        sender = threading.Thread(target=deployment.send, args=(values,))  # it retries, too
        sender.start()
        wait_until("it is in full flow", lambda: sum(deployment.ends(deployment.names.sequences)) > 0)
        for stage, port in ports.items():
            wait_until(f"{stage} is ready", lambda: is_ready(stage, port))  # noqa: B023
        stop_part(stack.data_dir, "kafka", kill=True)
        before = [psutil.Process(worker.process.pid).memory_info().rss for worker in (ingest, sequence)]
        time.sleep(8)
        after = [psutil.Process(worker.process.pid).memory_info().rss for worker in (ingest, sequence)]
        assert [worker.process.poll() for worker in (ingest, sequence)] == [None, None]
        assert all(b < a + (32 << 20) for a, b in zip(before, after, strict=True)), (before, after)
        for worker in (ingest, sequence):
            assert "does not answer; retrying" in worker.text()
        for stage, port in ports.items():
            wait_until(f"{stage} is not ready", lambda: not is_ready(stage, port))  # noqa: B023
        start_part(stack.data_dir, "kafka")
        sender.join(60)
        assert not sender.is_alive()
        deployment.send(random_events(5_000, 1000, seed=1))
        deployment.drain(90)
        for stage, port in ports.items():
            wait_until(f"{stage} is ready again", lambda: is_ready(stage, port))  # noqa: B023
        for worker in (ingest, sequence):
            assert worker.process.poll() is None
        assert deployment.mismatches() == []
        assert (ingest.stop(), sequence.stop()) == (0, 0)


def test_a_broker_that_stays_away_ends_the_stages_with_a_reason(prefix: str, tmp_path: Path) -> None:
    with running(tmp_path / "stack") as stack, Deployment(stack.kafka_bootstrap, prefix, tmp_path) as deployment:
        workers = [deployment.start(stage, give_up_after_s=5) for stage in ("ingest", "sequence")]
        for worker in workers:
            worker.wait_for_partitions()
        deployment.send(random_events(2000, 100))
        deployment.drain()
        stop_part(stack.data_dir, "kafka", kill=True)
        for worker in workers:
            assert worker.wait(40) == 6
            assert "has not answered for 5 s" in worker.text() or "within 5 s" in worker.text()
            assert "Traceback" not in worker.text()
        start_part(stack.data_dir, "kafka")
        for stage in ("ingest", "sequence"):
            deployment.start(stage)
        deployment.send(random_events(2000, 100, seed=1))
        deployment.drain()
        assert deployment.mismatches() == []


def test_an_interrupted_creation_of_topics_is_completed(kafka_bootstrap: str, prefix: str, tmp_path: Path) -> None:
    deployment = Deployment(kafka_bootstrap, prefix, tmp_path)
    topic = deployment.names.sequences
    deployment.admin.client.delete_topics([topic])[topic].result()

    def made() -> bool:
        return create_topics(deployment.kafka, deployment.names, PARTITIONS).created == (topic,)

    wait_until("the missing topic is made", made)
