"""Up, down, status: the local stack of one data directory.

Every change is made under the directory's lock and written to its state file before anything else happens, so that whoever
comes next (another command, the same one after a crash) finds what runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from schemas.errors import ConfigError, UnavailableError
from slipstream.stack import lifecycle
from slipstream.stack.choose import Machine, choose
from slipstream.stack.process import HOST, free_port, port_is_free
from slipstream.stack.runner import Runner
from slipstream.stack.state import LOCK_FILE, PARTS, How, Part, PartName, Stack, StackState, load, locked, save

Notify = Callable[[str], None]
START_TIMEOUT_S = 90.0
PORT_ATTEMPTS = 3


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
    pass


def up(
    data_dir: Path,
    kafka_bootstrap: str | None = None,
    redis_url: str | None = None,
    *,
    ports: Mapping[PartName, int] | None = None,
    notify: Notify = quiet,
    machine: Machine | None = None,
    timeout_s: float = START_TIMEOUT_S,
) -> Stack:
    """Kafka and Redis that answer: at the given addresses, or started with their files in `data_dir`.

    What runs there already is kept.
    If it fails or is interrupted, what this call started is stopped again. A restart finds Kafka's data and its ports again,
    unless somebody took the ports.

    Raises PrerequisiteError (nothing here to start them with), UnavailableError (they do not come up, or a given address does
    not answer) or ConfigError (a port of `ports` is taken; the state file cannot be read).
    """
    data_dir = data_dir.resolve()
    machine = machine or Machine.this()
    addresses: dict[PartName, str | None] = {"kafka": kafka_bootstrap, "redis": redis_url}
    started: list[PartName] = []
    with locked(data_dir / LOCK_FILE):
        try:
            for name in PARTS:
                if not _keep(data_dir, name, addresses[name], machine, notify):
                    started.append(name)
                    _start(data_dir, name, addresses[name], (ports or {}).get(name), machine, notify, timeout_s)
        except BaseException:
            for name in reversed(started):
                _stop(data_dir, name, machine, kill=False)
            raise
    stack = current(data_dir)
    assert stack is not None
    return stack


def start_part(
    data_dir: Path,
    name: PartName,
    *,
    notify: Notify = quiet,
    machine: Machine | None = None,
    timeout_s: float = START_TIMEOUT_S,
) -> Part:
    """Starts one part again, on its former ports and data. Nothing happens if it runs."""
    data_dir = data_dir.resolve()
    machine = machine or Machine.this()
    with locked(data_dir / LOCK_FILE):
        if not _keep(data_dir, name, None, machine, notify):
            try:
                _start(data_dir, name, None, None, machine, notify, timeout_s)
            except BaseException:
                _stop(data_dir, name, machine, kill=False)
                raise
        part = load(data_dir).part(name)
    assert part is not None
    return part


def stop_part(data_dir: Path, name: PartName, *, kill: bool = False, machine: Machine | None = None) -> bool:
    """Stops one part, with `kill` at once (SIGKILL); returns whether it ran. Its data and ports are kept."""
    data_dir = data_dir.resolve()
    if not data_dir.is_dir():
        return False
    with locked(data_dir / LOCK_FILE):
        return _stop(data_dir, name, machine or Machine.this(), kill=kill)


def down(data_dir: Path, *, notify: Notify = quiet, machine: Machine | None = None) -> tuple[PartName, ...]:
    """Stops what `up` started in this directory, and nothing else; returns the names of what it stopped."""
    stopped = []
    for name in PARTS:
        if stop_part(data_dir, name, machine=machine):
            notify(f"{name} stopped")
            stopped.append(name)
    return tuple(stopped)


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
                lifecycle.ask(name, part, timeout_s)
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


def _keep(data_dir: Path, name: PartName, address: str | None, machine: Machine, notify: Notify) -> bool:
    """Whether the remembered part runs, answers and is what was asked for; if not, it is out of the way afterwards."""
    part = load(data_dir).part(name)
    if part is None or part.how is How.EXTERNAL:
        return False
    if not lifecycle.is_running(name, part, data_dir, machine):
        return False
    if address:
        notify(f"stopping the {name} of {data_dir}: an address was given")
    else:
        try:
            lifecycle.ask(name, part, timeout_s=10.0)
            return True
        except UnavailableError as error:
            notify(f"restarting {name}: {error}")
    _stop(data_dir, name, machine, kill=False)
    return False


def _start(
    data_dir: Path,
    name: PartName,
    address: str | None,
    port: int | None,
    machine: Machine,
    notify: Notify,
    timeout_s: float,
) -> None:
    runner = choose(name, address, data_dir, machine)
    former = load(data_dir).part(name)
    for attempt in range(1, PORT_ATTEMPTS + 1):
        chosen = _ports(runner, name, port, former.ports if former and attempt == 1 else {})
        part = runner.launch(data_dir / name, chosen, notify)
        save(data_dir, load(data_dir).with_part(name, part))
        try:
            lifecycle.wait_until_it_answers(name, part, timeout_s)
            notify(f"{name} answers at {lifecycle.shown_address(part)}")
            return
        except UnavailableError as error:
            if part.how is How.EXTERNAL:
                raise UnavailableError(f"{error} Start it, or unset the address to have one started here.") from error
            said = lifecycle.log_of(name, part, data_dir, machine)
            _stop(data_dir, name, machine, kill=False)
            # Between the choice of a free port and its use somebody else may have taken it.
            robbed = isinstance(error, lifecycle.DiedError) and not all(
                port_is_free(number) for number in chosen.values()
            )
            if robbed and port is None and attempt < PORT_ATTEMPTS:
                notify(f"another program took a port of {name}: once more, on others")
                continue
            raise UnavailableError(
                f"{name} did not start: {error}\n{said}\nIts log: {part.log or 'docker compose logs'}"
            ) from error


def _ports(runner: Runner, name: PartName, asked: int | None, former: Mapping[str, int]) -> dict[str, int]:
    """The asked one, else those of the last time, else free ones."""
    chosen: dict[str, int] = {}
    for listener in runner.listeners:
        if listener == "client" and asked is not None:
            if not port_is_free(asked):
                raise ConfigError(
                    f"Port {asked} of {HOST}, wanted for {name}, is taken by another program: choose another one."
                )
            chosen[listener] = asked
        elif listener in former and former[listener] not in chosen.values() and port_is_free(former[listener]):
            chosen[listener] = former[listener]
        else:
            chosen[listener] = free_port(avoid=chosen.values())
    return chosen


def _stop(data_dir: Path, name: PartName, machine: Machine, *, kill: bool) -> bool:
    state: StackState = load(data_dir)
    part = state.part(name)
    if part is None:
        return False
    if part.how is How.EXTERNAL:
        save(data_dir, state.with_part(name, None))
        return False
    ran = lifecycle.is_running(name, part, data_dir, machine)
    if ran:
        lifecycle.stop(name, part, data_dir, machine, kill=kill)
    save(data_dir, state.with_part(name, msgspec.structs.replace(part, process=None, running=False)))
    return ran
