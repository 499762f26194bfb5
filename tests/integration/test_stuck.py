"""Stages that cannot make progress end with a reason, and stages told to stop end whatever Kafka does. Nothing is lost.

Run: pytest tests/integration/test_stuck.py
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from edge.broker_watch import INTERVAL_S
from schemas.names import Names
from slipstream.stack import Stack, current, running, start_part, stop_part
from slipstream.stack.process import free_port
from stream.topics import create_topics
from tests.encoder.models import Model
from tests.integration.encoding import Changelog, encoder
from tests.integration.streaming import Deployment, is_ready, random_events, wait_until
from tests.integration.test_encode import step

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

#: Of the tests, far above what a stage takes: they ask whether it ends.
END_TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose broker is frozen and killed here."""
    with running(tmp_path_factory.mktemp("own")) as stack:
        yield stack


@contextmanager
def frozen(stack: Stack) -> Iterator[None]:
    """The broker is there, its connections stay open, and it answers nothing."""
    running_now = current(stack.data_dir)  # another test may have started it again
    assert running_now is not None
    assert running_now.kafka.process is not None
    broker = psutil.Process(running_now.kafka.process.pid)
    broker.suspend()
    try:
        yield
    finally:
        broker.resume()


@contextmanager
def killed(stack: Stack) -> Iterator[None]:
    stop_part(stack.data_dir, "kafka", kill=True)
    try:
        yield
    finally:
        start_part(stack.data_dir, "kafka")


Away = Callable[[Stack], "contextmanager[None]"]  # type: ignore[valid-type]


@pytest.mark.parametrize("away", [frozen, killed])
@pytest.mark.parametrize("stage", ["ingest", "sequence"])
def test_a_stage_ends_on_request_while_kafka_is_away(
    own: Stack, prefix: str, tmp_path: Path, stage: str, away: Callable[..., object]
) -> None:
    with Deployment(own.kafka_bootstrap, prefix, tmp_path) as deployment:
        workers = {name: deployment.start(name) for name in ("ingest", "sequence")}
        for worker in workers.values():
            worker.wait_for_partitions()
        deployment.send(random_events(40_000, 500))
        wait_until("it is in full flow", lambda: sum(deployment.ends(deployment.names.sequences)) > 0)
        with away(own):  # type: ignore[attr-defined]
            worker = workers[stage]
            worker.process.send_signal(signal.SIGTERM)
            assert worker.wait(END_TIMEOUT_S) == 0, worker.text()
            assert "Traceback" not in worker.text()
        wait_until("Kafka answers again", lambda: deployment.lag(stage) >= 0)
        # On a slow machine ingest may have committed all there was before Kafka went.
        assert "not committed" in worker.text() or deployment.lag(stage) == 0, worker.text()
        deployment.start(stage)
        deployment.send(random_events(2_000, 500, seed=1))
        deployment.drain(90)
        assert deployment.mismatches() == []


@pytest.mark.parametrize("away", [frozen, killed])
def test_the_encoder_ends_on_request_while_kafka_is_away(
    own: Stack, model: Model, prefix: str, tmp_path: Path, away: Callable[..., object]
) -> None:
    refreshes = tmp_path / "refreshes.jsonl"

    def refreshed() -> int:
        return refreshes.read_bytes().count(b"\n")

    changelog = Changelog(own.kafka_bootstrap, Names(prefix))
    changelog.write(step(0))
    slowly = {"max_batch_users": 1, "refresh_log": refreshes}
    with encoder(model, changelog, own.redis_url, tmp_path / "log", **slowly) as worker:
        changelog.wait_for(model)
        for number in range(1, 20):
            changelog.write(step(number))
        with away(own):  # type: ignore[attr-defined]
            before = refreshed()
            wait_until("it works on with what it has read", lambda: refreshed() > before)
            worker.process.send_signal(signal.SIGTERM)
            assert worker.process.wait(END_TIMEOUT_S) == 0, worker.log
            assert "not committed" in worker.log
            assert "Traceback" not in worker.log
    changelog.write(step(20))
    with encoder(model, changelog, own.redis_url, tmp_path / "log") as worker:
        changelog.wait_for(model)
        assert changelog.mismatches(model, own.redis_url) == []
        assert worker.terminate() == 0


@pytest.mark.parametrize(
    ("stage", "topic"),
    [("ingest", "engagements"), ("ingest", "batches"), ("sequence", "batches"), ("sequence", "sequences")],
)
def test_a_deleted_topic_ends_the_stage(
    kafka_bootstrap: str, prefix: str, tmp_path: Path, stage: str, topic: str
) -> None:
    with Deployment(kafka_bootstrap, prefix, tmp_path) as deployment:
        worker = deployment.start(stage)
        worker.wait_for_partitions()
        name = getattr(deployment.names, topic)
        deployment.admin.client.delete_topics([name])[name].result()
        assert worker.wait(END_TIMEOUT_S) == 5, worker.text()
        assert f"topic {name}" in worker.text()
        assert "Traceback" not in worker.text()


@pytest.mark.parametrize("stage", ["ingest", "sequence"])
def test_a_topic_that_was_made_anew_ends_the_stage(
    kafka_bootstrap: str, prefix: str, tmp_path: Path, stage: str
) -> None:
    """Its offsets begin again: what the group has committed means other messages now."""
    with Deployment(kafka_bootstrap, prefix, tmp_path) as deployment:
        worker = deployment.start(stage, metrics_port=(port := free_port()))
        worker.wait_for_partitions()
        wait_until("it has looked at its topics", lambda: is_ready(stage, port))
        time.sleep(2 * INTERVAL_S)  # and has seen their ids
        name = deployment.names.engagements if stage == "ingest" else deployment.names.batches
        deployment.admin.client.delete_topics([name])[name].result()
        wait_until("it is made anew", lambda: name in create_topics(deployment.kafka, deployment.names, 4).created)
        assert worker.wait(END_TIMEOUT_S) == 5, worker.text()
        assert "Traceback" not in worker.text()


@pytest.mark.parametrize(("stage", "topic"), [("ingest", "batches"), ("sequence", "sequences")])
def test_a_topic_that_refuses_messages_for_their_size_ends_the_stage(
    kafka_bootstrap: str, prefix: str, tmp_path: Path, stage: str, topic: str
) -> None:
    def limit(max_message_bytes: int) -> None:
        entry = ConfigEntry("max.message.bytes", str(max_message_bytes))
        resource = ConfigResource(ResourceType.TOPIC, getattr(deployment.names, topic), incremental_configs=[entry])
        entry.incremental_operation = AlterConfigOpType.SET
        deployment.admin.client.incremental_alter_configs([resource])[resource].result()

    with Deployment(kafka_bootstrap, prefix, tmp_path) as deployment:
        workers = {name: deployment.start(name) for name in ("ingest", "sequence")}
        for worker in workers.values():
            worker.wait_for_partitions()
        deployment.send(random_events(500, 20))
        deployment.drain()
        limit(100)
        deployment.send(random_events(2000, 20, seed=1))
        assert workers[stage].wait(END_TIMEOUT_S) == 5, workers[stage].text()
        assert "max.message.bytes" in workers[stage].text()
        assert "Traceback" not in workers[stage].text()
        limit(8 << 20)
        deployment.start(stage)
        deployment.drain()
        assert deployment.mismatches() == []
