"""Starting and stopping a part, with a real redis-server: it starts in no time, and Kafka goes the same way."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import redis

from schemas.errors import ConfigError, UnavailableError
from slipstream.stack import How, Part, lifecycle, process
from slipstream.stack.choose import choose
from slipstream.stack.parts import Parts, choose_ports
from slipstream.stack.process import ProcessId
from slipstream.stack.redis import RedisServer
from slipstream.stack.state import StackState, load, save
from tests.slipstream.stack.programs import machine, machine_without_docker, program

TIMEOUT_S = 20.0


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    here = Parts(tmp_path / "data", machine_without_docker(tmp_path), lambda message: None)
    yield here
    here.stop("redis", kill=True)


def redis_part(parts: Parts) -> Part:
    part = load(parts.data_dir).redis
    assert part is not None
    return part


def start(parts: Parts, port: int | None = None) -> tuple[Part, ProcessId]:
    parts.start("redis", None, port, TIMEOUT_S)
    part = redis_part(parts)
    assert part.process is not None
    return part, part.process


def kill_9(identity: ProcessId) -> None:
    os.kill(identity.pid, signal.SIGKILL)
    while process.find(identity):
        time.sleep(0.01)


def test_start_keep_stop(parts: Parts) -> None:
    assert not parts.keep("redis", None, None)
    part, identity = start(parts)
    assert redis.Redis.from_url(part.address).ping()
    assert parts.is_running("redis")
    assert parts.keep("redis", None, None)
    assert parts.keep("redis", None, part.ports["client"])
    assert redis_part(parts) == part
    assert parts.stop("redis")
    assert process.find(identity) is None
    assert not parts.is_running("redis")
    assert not parts.stop("redis")
    stopped = redis_part(parts)
    assert (stopped.ports, stopped.running, stopped.process) == (part.ports, False, None)


def test_a_restart_takes_the_former_port(parts: Parts) -> None:
    first, _ = start(parts)
    parts.stop("redis")
    second, _ = start(parts)
    assert second.address == first.address


def test_what_died_is_recognised_and_started_again(parts: Parts) -> None:
    first, identity = start(parts)
    kill_9(identity)
    assert not parts.is_running("redis")
    assert not parts.keep("redis", None, None)
    second, _ = start(parts)
    assert second.address == first.address


def test_a_recycled_pid_is_left_alone(parts: Parts, tmp_path: Path) -> None:
    part, identity = start(parts)
    kill_9(identity)
    strangers: list[ProcessId] = []
    stranger = process.spawn(["/bin/sleep", "60"], tmp_path / "stranger.log", os.environ, strangers.append)
    try:
        recycled = msgspec.structs.replace(part, process=ProcessId(stranger.pid, identity.create_time_s - 60))
        save(parts.data_dir, StackState(redis=recycled))
        assert not parts.is_running("redis")
        assert not parts.keep("redis", None, None)
        assert not parts.stop("redis")
        assert process.find(stranger) is not None
    finally:
        process.kill([stranger])


def test_a_hanging_part_is_started_again(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slipstream.stack.parts.HANG_TIMEOUT_S", 0.3)
    monkeypatch.setattr("slipstream.stack.lifecycle.STOP_TIMEOUT_S", {"redis": 0.3})
    _, identity = start(parts)
    os.kill(identity.pid, signal.SIGSTOP)
    assert not parts.keep("redis", None, None)
    assert process.find(identity) is None
    start(parts)


def test_an_asked_port(parts: Parts) -> None:
    port = process.free_port()
    part, _ = start(parts, port)
    assert part.ports == {"client": port}
    with pytest.raises(ConfigError, match=f"runs on port {port}, not {port + 1}"):
        parts.keep("redis", None, port + 1)


def test_an_asked_port_that_is_taken_is_an_error(parts: Parts) -> None:
    port = process.free_port()
    with socket.create_server((process.HOST, port)), pytest.raises(ConfigError, match=f"Port {port} .* is taken"):
        start(parts, port)


def test_a_former_port_that_is_taken_is_given_up(parts: Parts) -> None:
    first, _ = start(parts)
    parts.stop("redis")
    with socket.create_server((process.HOST, first.ports["client"])):
        second, _ = start(parts)
    assert second.ports != first.ports


def test_a_port_that_is_taken_between_choice_and_start_is_given_up(parts: Parts, tmp_path: Path) -> None:
    real = choose("redis", None, tmp_path, parts.machine)
    assert isinstance(real, RedisServer)
    # The first time, a child holds the port for a while and the server gives up; afterwards it is the real one.
    robber = f"""
port=$(sed -n 's/^port //p' "$1")
if mkdir {tmp_path}/once; then
  {sys.executable} -c "import socket, time; s = socket.create_server(('127.0.0.1', $port)); time.sleep(60)" &
  echo $! > {tmp_path}/robber
  sleep 1; echo 'Address already in use'; exit 1
fi
exec {real.binary.resolve()} "$@"
"""
    said: list[str] = []
    program(tmp_path / "bin", "redis-server", robber)
    robbed = Parts(parts.data_dir, machine(tmp_path), said.append)
    try:
        part, _ = start(robbed)
    finally:
        os.kill(int((tmp_path / "robber").read_text()), signal.SIGKILL)
    assert redis.Redis.from_url(part.address).ping()
    assert any("another program took a port" in message for message in said)


def test_a_failed_start_shows_the_log_and_leaves_nothing(parts: Parts, tmp_path: Path) -> None:
    program(tmp_path / "bin", "redis-server", "echo 'FATAL: the reason'; exit 1")
    broken = Parts(parts.data_dir, machine(tmp_path), print)
    with pytest.raises(UnavailableError, match=r"ended before it answered[^$]*FATAL: the reason"):
        broken.start("redis", None, None, TIMEOUT_S)
    assert not redis_part(parts).running


def test_one_that_never_answers_is_given_up_and_stopped(parts: Parts, tmp_path: Path) -> None:
    program(tmp_path / "bin", "redis-server", "echo $$ > pid; exec sleep 60")
    deaf = Parts(parts.data_dir, machine(tmp_path), print)
    with pytest.raises(UnavailableError, match="Nothing listens"):
        deaf.start("redis", None, None, timeout_s=0.5)
    pid = int((parts.data_dir / "redis" / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists()


def test_a_stranger_on_the_port_is_not_taken_for_ours(parts: Parts) -> None:
    part, identity = start(parts)
    save(parts.data_dir, StackState(redis=msgspec.structs.replace(part, process=ProcessId(os.getpid(), 0.0))))
    try:
        with pytest.raises(UnavailableError, match=f"Another Redis .pid {identity.pid}"):
            lifecycle.ask("redis", redis_part(parts), 1.0)
    finally:
        save(parts.data_dir, StackState(redis=part))


def test_a_given_address_stops_the_one_that_was_started(parts: Parts, tmp_path: Path) -> None:
    given = Parts(tmp_path / "given", parts.machine, print)
    given.start("redis", None, None, TIMEOUT_S)
    try:
        _, identity = start(parts)
        address = redis_part(given).address
        assert not parts.keep("redis", address, None)
        assert process.find(identity) is None
        parts.start("redis", address, None, TIMEOUT_S)
        assert redis_part(parts) == Part(how=How.EXTERNAL, address=address)
        assert not parts.stop("redis")
        assert given.is_running("redis")
    finally:
        given.stop("redis", kill=True)


def test_a_given_address_that_does_not_answer(parts: Parts) -> None:
    address = f"redis://:secret@127.0.0.1:{process.free_port()}/0"
    with pytest.raises(UnavailableError, match="does not answer") as error:
        parts.start("redis", address, None, timeout_s=0.5)
    assert "secret" not in str(error.value)


def test_ports_are_distinct_and_free(tmp_path: Path) -> None:
    kafka = choose("kafka", None, tmp_path, machine_without_docker(tmp_path))
    port = process.free_port()
    ports = choose_ports(kafka, "kafka", None, {"client": port, "controller": port})
    assert ports["client"] == port
    assert ports["controller"] != port
    assert (
        choose_ports(choose("kafka", "broker:9092", tmp_path, machine_without_docker(tmp_path)), "kafka", None, {})
        == {}
    )
