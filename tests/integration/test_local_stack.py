"""A stack of its own from start to end: this machine's Java and Redis, whether Docker is there or not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from schemas.errors import UnavailableError
from slipstream.stack import Machine, Stack, current, down, process, running, start_part, status, stop_part, up
from slipstream.stack.process import ProcessId
from slipstream.stack.state import load
from tests.slipstream.stack.programs import machine_without_docker

pytestmark = pytest.mark.integration
TIMEOUT_S = 30.0


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return machine_without_docker(tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, machine: Machine) -> Iterator[Stack]:
    """Killed and restarted by these tests."""
    with running(tmp_path_factory.mktemp("own"), machine=machine) as stack:
        yield stack


@pytest.fixture
def own(started: Stack) -> Stack:
    """With the processes that it has now, whichever tests ran before."""
    now = current(started.data_dir)
    assert now is not None
    return now


def create(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(TIMEOUT_S)


def produce(bootstrap: str, topic: str, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(TIMEOUT_S) == 0


def consume(bootstrap: str, topic: str, count: int) -> list[bytes | None]:
    """By a group, so that the offsets topic is there too; committed messages only."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"{topic}-readers",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,
            "isolation.level": "read_committed",
        }
    )
    consumer.subscribe([topic])
    values: list[bytes | None] = []
    deadline = time.monotonic() + TIMEOUT_S
    while len(values) < count and time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            values.append(message.value())
    consumer.close()
    return values


def processes_of(stack: Stack) -> list[ProcessId]:
    found = [part.process for part in (stack.kafka, stack.redis) if part.process]
    assert all(process.find(identity) for identity in found)
    assert len(found) == 2
    return found


def gone(identities: list[ProcessId]) -> bool:
    return not any(process.find(identity) for identity in identities)


def test_a_message_goes_through(own: Stack, prefix: str) -> None:
    create(own.kafka_bootstrap, prefix)
    produce(own.kafka_bootstrap, prefix, b"hello")
    assert consume(own.kafka_bootstrap, prefix, 1) == [b"hello"]


def test_transactions_work(own: Stack, prefix: str) -> None:
    create(own.kafka_bootstrap, prefix)
    producer = Producer({"bootstrap.servers": own.kafka_bootstrap, "transactional.id": prefix})
    producer.init_transactions(TIMEOUT_S)
    producer.begin_transaction()
    producer.produce(prefix, b"aborted")
    producer.flush(TIMEOUT_S)
    producer.abort_transaction(TIMEOUT_S)
    producer.begin_transaction()
    producer.produce(prefix, b"committed")
    producer.commit_transaction(TIMEOUT_S)
    assert consume(own.kafka_bootstrap, prefix, 1) == [b"committed"]


def test_a_mistyped_topic_is_not_created(own: Stack, prefix: str) -> None:
    errors: list[object] = []
    producer = Producer({"bootstrap.servers": own.kafka_bootstrap, "message.timeout.ms": 2000})
    producer.produce(prefix, b"lost?", on_delivery=lambda error, message: errors.append(error))
    producer.flush(TIMEOUT_S)
    assert len(errors) == 1
    assert errors[0] is not None
    assert prefix not in AdminClient({"bootstrap.servers": own.kafka_bootstrap}).list_topics(timeout=TIMEOUT_S).topics


def test_redis_answers_and_keeps_nothing_on_disk(own: Stack) -> None:
    with redis.Redis.from_url(own.redis_url) as client:
        assert client.ping()
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("bind") == {"bind": "127.0.0.1"}


def test_up_again_is_the_same_stack(own: Stack, machine: Machine) -> None:
    before = processes_of(own)
    assert up(own.data_dir, machine=machine) == own == current(own.data_dir)
    assert processes_of(own) == before
    found = status(own.data_dir, machine=machine)
    assert found.healthy
    assert (found.kafka.address, found.redis.address) == (own.kafka_bootstrap, own.redis_url)
    assert [part.pid for part in (found.kafka, found.redis)] == [identity.pid for identity in before]
    assert found.kafka.log is not None
    assert "Kafka Server started" in found.kafka.log.read_text()


def test_a_killed_broker_comes_back_with_its_messages(own: Stack, machine: Machine, prefix: str) -> None:
    create(own.kafka_bootstrap, prefix)
    produce(own.kafka_bootstrap, prefix, b"1", b"2")
    broker = processes_of(own)[0]
    assert stop_part(own.data_dir, "kafka", kill=True, machine=machine)
    assert gone([broker])
    found = status(own.data_dir, machine=machine)
    assert (found.kafka.reachable, found.redis.reachable) == (False, True)
    assert not stop_part(own.data_dir, "kafka", machine=machine)
    part = start_part(own.data_dir, "kafka", machine=machine)
    assert (part.address, part.cluster_id) == (own.kafka.address, own.kafka.cluster_id)
    produce(own.kafka_bootstrap, prefix, b"3")
    assert consume(own.kafka_bootstrap, prefix, 3) == [b"1", b"2", b"3"]


def test_a_broker_that_somebody_else_killed_is_started_by_up(own: Stack, machine: Machine, prefix: str) -> None:
    create(own.kafka_bootstrap, prefix)
    produce(own.kafka_bootstrap, prefix, b"1")
    now = current(own.data_dir)
    assert now is not None
    broker, server = processes_of(now)
    os.kill(broker.pid, signal.SIGKILL)
    while not gone([broker]):
        time.sleep(0.01)
    assert "ended by itself" in status(own.data_dir, machine=machine).kafka.detail
    again = up(own.data_dir, machine=machine)
    assert again.kafka_bootstrap == own.kafka_bootstrap
    assert processes_of(again)[1] == server
    assert consume(own.kafka_bootstrap, prefix, 1) == [b"1"]


def test_down_leaves_no_process_and_up_finds_the_data(tmp_path: Path, machine: Machine, prefix: str) -> None:
    first = up(tmp_path, machine=machine)
    processes = processes_of(first)
    try:
        create(first.kafka_bootstrap, prefix)
        produce(first.kafka_bootstrap, prefix, b"kept")
        assert down(tmp_path, machine=machine) == ("kafka", "redis")
        assert gone(processes)
        assert current(tmp_path) is None
        assert down(tmp_path, machine=machine) == ()
        second = up(tmp_path, machine=machine)
        assert (second.kafka_bootstrap, second.redis_url) == (first.kafka_bootstrap, first.redis_url)
        assert consume(second.kafka_bootstrap, prefix, 1) == [b"kept"]
    finally:
        down(tmp_path, discard_data=True, machine=machine)
    assert not (tmp_path / "kafka" / "data").exists()
    assert (tmp_path / "kafka" / "broker.log").exists()


def test_given_addresses_are_used_and_never_stopped(own: Stack, tmp_path: Path, machine: Machine) -> None:
    stack = up(tmp_path, own.kafka_bootstrap, own.redis_url, machine=machine)
    assert (stack.kafka_bootstrap, stack.redis_url) == (own.kafka_bootstrap, own.redis_url)
    assert not (tmp_path / "kafka").exists()
    assert status(tmp_path, machine=machine).healthy
    assert down(tmp_path, machine=machine) == ()
    assert status(own.data_dir, machine=machine).healthy


def test_a_given_address_that_does_not_answer_stops_what_this_call_started(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slipstream.stack.parts.GIVEN_TIMEOUT_S", 0.5)
    with pytest.raises(
        UnavailableError, match=r"Kafka does not answer at 127.0.0.1:1 .*Start it, or unset the address"
    ):
        up(tmp_path, kafka_bootstrap="127.0.0.1:1", machine=machine)
    with pytest.raises(UnavailableError, match="Redis does not answer"):
        up(tmp_path, redis_url="redis://127.0.0.1:1/0", machine=machine)
    kafka = load(tmp_path).kafka
    assert kafka is not None
    assert not kafka.running
    assert not status(tmp_path, machine=machine).kafka.running


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_owner_that_ends_half_way_leaves_no_process(
    tmp_path: Path, machine: Machine, number: signal.Signals, exit_code: int
) -> None:
    """Ctrl-C while Kafka starts, of `up`; kill -9, of a program that uses `running`, whose guard then stops the stack."""
    if number is signal.SIGINT:
        command = [sys.executable, "-m", "slipstream.stack", "up", "--data-dir", str(tmp_path)]
    else:
        code = (
            "import sys, pathlib; from slipstream.stack import running; running(pathlib.Path(sys.argv[1])).__enter__()"
        )
        command = [sys.executable, "-c", code, str(tmp_path)]
    owner = subprocess.Popen(command, env={**os.environ, "PATH": machine.path}, stderr=subprocess.PIPE)
    deadline = time.monotonic() + TIMEOUT_S
    while (kafka := load(tmp_path).kafka) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert kafka is not None
    assert kafka.process is not None
    broker = kafka.process
    owner.send_signal(number)
    _, said = owner.communicate(timeout=TIMEOUT_S)
    assert owner.returncode == exit_code
    assert b"Traceback" not in said
    while not gone([broker]) and time.monotonic() < deadline:  # the guard works on after its owner's end
        time.sleep(0.02)
    assert gone([broker])


def test_the_session_stack_is_another_one(own: Stack, stack: Stack, redis_client: redis.Redis, prefix: str) -> None:
    assert stack.kafka_bootstrap != own.kafka_bootstrap
    assert redis_client.set(prefix, b"x", px=1000)
    with redis.Redis.from_url(own.redis_url) as client:
        assert client.get(prefix) is None
