"""Up, down, status: the local stack of one data directory.

Every change is made under the directory's lock and written to its state file at once, so that whoever comes next (another
command, the same one after a crash) finds what runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ConfigError, UnavailableError
from slipstream.stack import lifecycle
from slipstream.stack.choose import Machine, choose
from slipstream.stack.parts import Parts
from slipstream.stack.runner import Notify
from slipstream.stack.state import LOCK_FILE, PARTS, How, Part, PartName, Stack, load, locked

START_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class PartStatus:
    name: PartName
    how: How | None  # None: never started here
    address: str | None  # without a password
    running: bool
    reachable: bool
    detail: str  # why it cannot be reached; empty if it can
    pid: int | None
    started_at_ms: int | None
    log: Path | None


@dataclass(frozen=True)
class StackStatus:
    data_dir: Path
    kafka: PartStatus
    redis: PartStatus

    @property
    def healthy(self) -> bool:
        return self.kafka.reachable and self.redis.reachable


def quiet(message: str) -> None:
    """Tells nobody."""


def up(
    data_dir: Path,
    kafka_bootstrap: str | None = None,
    redis_url: str | None = None,
    *,
    kafka_options: Mapping[str, str] | None = None,
    ports: Mapping[PartName, int] | None = None,
    notify: Notify = quiet,
    machine: Machine | None = None,
    timeout_s: float = START_TIMEOUT_S,
) -> Stack:
    """Kafka and Redis that answer: at the given addresses, or started with their files in `data_dir`.

    What runs there already is kept. If it fails or is interrupted, what this call started is stopped again. A later start finds
    Kafka's data again, and its ports unless somebody took them. `kafka_options` (librdkafka's, for security) are used to ask
    a Kafka whose address was given.

    Raises PrerequisiteError (nothing here to start them with), UnavailableError (they do not come up, or a given address does
    not answer) or ConfigError (a port of `ports` is taken; the directory or its state file cannot be used).
    """
    asked: dict[PartName, str | None] = {"kafka": kafka_bootstrap, "redis": redis_url}
    with _parts(data_dir, machine, notify, kafka_options) as parts:
        started: list[PartName] = []
        try:
            for name in PARTS:
                port = (ports or {}).get(name)
                if not parts.keep(name, asked[name], port):
                    started.append(name)
                    parts.start(name, asked[name], port, timeout_s)
        except BaseException:
            for name in reversed(started):
                parts.stop(name)
            raise
        stack = current(parts.data_dir)
    assert stack is not None
    return stack


def down(
    data_dir: Path, *, discard_data: bool = False, notify: Notify = quiet, machine: Machine | None = None
) -> tuple[PartName, ...]:
    """Stops what was started in this directory, and nothing else; returns the names of what ran. Logs stay."""
    if not data_dir.is_dir():
        return ()
    stopped: list[PartName] = []
    with _parts(data_dir, machine, notify) as parts:
        for name in PARTS:
            if parts.stop(name):
                notify(f"{name} stopped")
                stopped.append(name)
        for name in PARTS if discard_data else ():
            parts.discard(name)
    return tuple(stopped)


def fetch(
    kafka_bootstrap: str | None = None,
    redis_url: str | None = None,
    *,
    notify: Notify = quiet,
    machine: Machine | None = None,
) -> None:
    """Downloads what `up` would download, and starts nothing: jars or images. Errors as of `up`."""
    machine = machine or Machine.this()
    asked: dict[PartName, str | None] = {"kafka": kafka_bootstrap, "redis": redis_url}
    for name in PARTS:
        choose(name, asked[name], Path(), machine).fetch(notify)


def start_part(
    data_dir: Path,
    name: PartName,
    *,
    notify: Notify = quiet,
    machine: Machine | None = None,
    timeout_s: float = START_TIMEOUT_S,
) -> Part:
    """Starts one part again, on its former ports and data; nothing happens if it runs. Errors as of `up`."""
    with _parts(data_dir, machine, notify) as parts:
        if not parts.keep(name, None, None):
            try:
                parts.start(name, None, None, timeout_s)
            except BaseException:
                parts.stop(name)
                raise
        part = load(parts.data_dir).part(name)
    assert part is not None
    return part


def stop_part(data_dir: Path, name: PartName, *, kill: bool = False, machine: Machine | None = None) -> bool:
    """Stops one part, with `kill` by SIGKILL; returns whether it ran, when it is gone. Its data and ports are kept."""
    if not data_dir.is_dir():
        return False
    with _parts(data_dir, machine, quiet) as parts:
        return parts.stop(name, kill=kill)


def current(data_dir: Path) -> Stack | None:
    """The stack as the state file tells it, without asking whether it answers; None unless both parts were started."""
    data_dir = data_dir.resolve()
    state = load(data_dir)
    if state.kafka is None or state.redis is None or not (state.kafka.running and state.redis.running):
        return None
    return Stack(state.kafka.address, state.redis.address, data_dir, state.kafka, state.redis)


def status(
    data_dir: Path,
    kafka_bootstrap: str | None = None,
    redis_url: str | None = None,
    *,
    kafka_options: Mapping[str, str] | None = None,
    machine: Machine | None = None,
    timeout_s: float = 3.0,
) -> StackStatus:
    """Asks both parts; starts and changes nothing. A given address counts more than what was started."""
    data_dir = data_dir.resolve()
    machine = machine or Machine.this()
    state = load(data_dir)

    def of(name: PartName, address: str | None) -> PartStatus:
        part = Part(how=How.EXTERNAL, address=address) if address else state.part(name)
        if part is None:
            return PartStatus(name, None, None, False, False, "never started in this data directory", None, None, None)
        running = lifecycle.is_running(name, part, data_dir, machine)
        detail = "" if running else "not running: it ended by itself, or was killed" if part.running else "stopped"
        if running:
            try:
                lifecycle.ask(name, part, timeout_s, kafka_options)
            except UnavailableError as error:
                detail = str(error)
        return PartStatus(
            name=name,
            how=part.how,
            address=lifecycle.shown_address(part),
            running=running,
            reachable=not detail,
            detail=detail,
            pid=part.process.pid if running and part.process else None,
            started_at_ms=part.started_at_ms if running else None,
            log=Path(part.log) if part.log else None,
        )

    return StackStatus(data_dir, of("kafka", kafka_bootstrap), of("redis", redis_url))


@contextlib.contextmanager
def _parts(
    data_dir: Path, machine: Machine | None, notify: Notify, kafka_options: Mapping[str, str] | None = None
) -> Iterator[Parts]:
    """The directory's parts, locked: one command at a time changes them."""
    data_dir = data_dir.resolve()
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with locked(data_dir / LOCK_FILE):
            yield Parts(data_dir, machine or Machine.this(), notify, kafka_options)
    except OSError as error:
        raise ConfigError(f"The data directory {data_dir} cannot be used: {error}.") from error
