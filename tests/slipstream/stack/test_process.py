from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from schemas.errors import UnavailableError
from slipstream.stack import process
from slipstream.stack.process import ProcessId

SLEEP = [sys.executable, "-c", "print('hello', flush=True); import time; time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)",
]


@pytest.fixture
def started() -> Iterator[list[ProcessId]]:
    """Whatever a test starts ends with it."""
    identities: list[ProcessId] = []
    yield identities
    process.kill(identities)


def wait_for(log: Path, text: str) -> None:
    """For a line that the process printed; the log's first line is the command itself."""
    while text not in log.read_text().splitlines():
        time.sleep(0.01)


def test_a_process_is_found_again_and_stopped(tmp_path: Path, started: list[ProcessId]) -> None:
    identity = process.spawn(SLEEP, tmp_path / "logs" / "a.log", os.environ, started.append)
    assert started == [identity]
    found = process.find(identity)
    assert found is not None
    assert found.pid == identity.pid
    assert os.getsid(identity.pid) == identity.pid != os.getsid(0)  # Ctrl-C in our terminal is not for it
    wait_for(tmp_path / "logs" / "a.log", "hello")
    process.stop([identity], timeout_s=5)
    assert process.find(identity) is None
    assert not psutil.pid_exists(identity.pid)  # no zombie either: we are its parent


def test_a_recycled_pid_is_another_process_and_is_left_alone(tmp_path: Path, started: list[ProcessId]) -> None:
    stranger = process.spawn(SLEEP, tmp_path / "a.log", os.environ, started.append)
    former = ProcessId(stranger.pid, stranger.create_time_s - 60)
    assert process.find(former) is None
    process.stop([former], timeout_s=1)
    process.kill([former])
    assert process.find(stranger) is not None


def test_a_killed_process_is_not_found_even_as_a_zombie(tmp_path: Path, started: list[ProcessId]) -> None:
    identity = process.spawn(SLEEP, tmp_path / "a.log", os.environ, started.append)
    os.kill(identity.pid, signal.SIGKILL)
    while process.find(identity):
        time.sleep(0.01)
    assert process.find(identity) is None


def test_one_that_does_not_listen_is_killed(tmp_path: Path, started: list[ProcessId]) -> None:
    identity = process.spawn(STUBBORN, tmp_path / "a.log", os.environ, started.append)
    wait_for(tmp_path / "a.log", "deaf")
    process.stop([identity], timeout_s=0.2)
    assert process.find(identity) is None


def test_a_program_that_cannot_run_is_a_clear_error(tmp_path: Path, started: list[ProcessId]) -> None:
    with pytest.raises(UnavailableError, match="cannot be run"):
        process.spawn([str(tmp_path / "absent")], tmp_path / "a.log", os.environ, started.append)
    assert started == []


def test_an_interrupt_waits_until_the_process_is_remembered(tmp_path: Path, started: list[ProcessId]) -> None:
    def remember(identity: ProcessId) -> None:
        signal.raise_signal(signal.SIGINT)
        started.append(identity)

    with pytest.raises(KeyboardInterrupt):
        process.spawn(SLEEP, tmp_path / "a.log", os.environ, remember)
    assert len(started) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_processes_can_be_started_from_other_threads(tmp_path: Path, started: list[ProcessId]) -> None:
    thread = threading.Thread(target=process.spawn, args=(SLEEP, tmp_path / "a.log", os.environ, started.append))
    thread.start()
    thread.join()
    assert process.find(started[0]) is not None


def test_the_log_keeps_all_starts_and_the_tail_shows_the_last(tmp_path: Path, started: list[ProcessId]) -> None:
    log = tmp_path / "a.log"
    for word in ("first", "second"):
        identity = process.spawn(["/bin/sh", "-c", f"echo {word}; echo 2>&1 more"], log, os.environ, started.append)
        while process.find(identity):
            time.sleep(0.01)
    assert log.read_text().count(process.START_MARK) == 2
    assert process.log_tail(log) == "  second\n  more"
    assert process.log_tail(log, lines=1) == "  more"
    assert "no log" in process.log_tail(tmp_path / "absent")
    assert "no log" in process.log_tail(None)


def test_a_large_log_is_put_aside(tmp_path: Path, started: list[ProcessId]) -> None:
    log = tmp_path / "a.log"
    with log.open("wb") as file:
        file.truncate(process.LOG_LIMIT_BYTES + 1)
    process.spawn(SLEEP, log, os.environ, started.append)
    assert (tmp_path / "a.log.1").stat().st_size > process.LOG_LIMIT_BYTES
    assert log.stat().st_size < 1000


def test_ports() -> None:
    port = process.free_port()
    assert port in process.PORTS
    assert process.port_is_free(port)
    assert not process.is_listening(port)
    with socket.create_server((process.HOST, port)):
        assert not process.port_is_free(port)
        assert process.is_listening(port)
    assert process.port_is_free(port)
    all_but_one = [other for other in process.PORTS if other != port]
    assert process.free_port(avoid=all_but_one) == port
    with pytest.raises(OSError, match="no free TCP port"):
        process.free_port(avoid=process.PORTS)
