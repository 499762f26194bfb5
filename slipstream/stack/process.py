"""Processes that outlive the command that started them: start, recognise again, stop."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import psutil

from schemas.errors import UnavailableError

HOST = "127.0.0.1"
# Below every system's ephemeral range (Linux starts at 32768, macOS at 49152): a client that keeps dialling a local port of that
# range while its server is down can be given this very port as its own end, connects to itself, and the server cannot come back.
PORTS = range(20_000, 32_000)
# psutil derives the create time from the boot time, which is rounded to seconds and drifts with the clock's corrections.
CREATE_TIME_TOLERANCE_S = 2.0
LOG_LIMIT_BYTES = 16 << 20
START_MARK = "==== started"


class ProcessId(msgspec.Struct, frozen=True):
    """A pid alone is no name, since pids are used again: the time of its start tells two processes apart."""

    pid: int
    create_time_s: float


def spawn(
    command: Sequence[str], log: Path, env: Mapping[str, str], remember: Callable[[ProcessId], None]
) -> ProcessId:
    """Starts `command` in a session of its own, so that Ctrl-C in the terminal does not reach it; output goes to `log`.

    `remember` writes the process down; no interrupt comes between its start and that. Raises UnavailableError if it cannot run.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_name(log.name + ".1"))
    with interrupts_deferred(), log.open("ab") as output:
        output.write(f"{START_MARK} {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(command)}\n".encode())
        output.flush()
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=log.parent,
                start_new_session=True,
            )
        except OSError as error:
            raise UnavailableError(f"{command[0]} cannot be run: {error}") from error
        try:
            identity = ProcessId(process.pid, psutil.Process(process.pid).create_time())
        except psutil.NoSuchProcess:  # died at once and somebody reaped it; the log says why
            identity = ProcessId(process.pid, 0.0)
        remember(identity)
    with warnings.catch_warnings():  # it is meant to go on when this object is gone
        warnings.simplefilter("ignore", ResourceWarning)
        del process
    return identity


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """SIGINT and SIGTERM act at the end of the block. In other threads Python delivers none, so nothing is to be done there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in former:
        signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def find(identity: ProcessId) -> psutil.Process | None:
    """The process if it is still running: not ended, not a zombie, not another one that was given the same pid."""
    try:
        process = psutil.Process(identity.pid)
        if abs(process.create_time() - identity.create_time_s) > CREATE_TIME_TOLERANCE_S:
            return None
        if process.status() == psutil.STATUS_ZOMBIE:
            if process.num_threads() > 1:  # its first thread has ended, others still hold its ports and files
                return process
            with contextlib.suppress(ChildProcessError):  # ours to reap only if we are its parent
                os.waitpid(identity.pid, os.WNOHANG)
            return None
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # the latter: another user's, so not ours
        return None
    return process


def stop(identities: Iterable[ProcessId], timeout_s: float) -> None:
    """Asks all of them to end, then kills those that did not within `timeout_s`. A second Ctrl-C kills at once."""
    identities = list(identities)
    _signal(identities, signal.SIGTERM)
    try:
        _wait(identities, timeout_s)
    finally:
        kill(identities)


def kill(identities: Iterable[ProcessId]) -> None:
    identities = list(identities)
    _signal(identities, signal.SIGKILL)
    _wait(identities, timeout_s=10.0)


def _signal(identities: Iterable[ProcessId], number: signal.Signals) -> None:
    for identity in identities:
        if process := find(identity):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def _wait(identities: Iterable[ProcessId], timeout_s: float) -> None:
    # Not psutil.wait_procs: it takes a zombie for running, and in a container nobody may reap what was left to pid 1.
    deadline = time.monotonic() + timeout_s
    while any(find(identity) for identity in identities) and time.monotonic() < deadline:
        time.sleep(0.02)


def port_is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT does not count as taken
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port(avoid: Iterable[int] = ()) -> int:
    """A port that nobody listens on now. Somebody may take it first: who starts a server there must see it come up."""
    taken = set(avoid)
    for port in random.sample(PORTS, len(PORTS)):
        if port not in taken and port_is_free(port):
            return port
    raise OSError(f"no free TCP port between {PORTS.start} and {PORTS.stop - 1} on {HOST}")


def is_listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=0.5):
        return True
    return False


def log_tail(log: Path | None, lines: int = 15) -> str:
    """The last lines since the last start, indented, for an error message."""
    if log is None:
        return "  (no log)"
    try:
        with log.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - 65_536, 0))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"  (no log: {error})"
    since_start = text.rpartition(START_MARK)[2].splitlines()[1:]
    return "\n".join("  " + line for line in since_start[-lines:]) or "  (the log is empty)"
