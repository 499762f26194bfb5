"""Starting and stopping one part of a data directory, its state file kept in step. Callers hold the directory's lock."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from schemas.errors import ConfigError, UnavailableError
from slipstream.stack import lifecycle
from slipstream.stack.choose import Machine, choose
from slipstream.stack.process import HOST, free_port, port_is_free
from slipstream.stack.runner import Notify, Runner
from slipstream.stack.state import How, Part, PartName, load, save

PORT_ATTEMPTS = 3
GIVEN_TIMEOUT_S = 10.0  # it is meant to run already
HANG_TIMEOUT_S = 10.0  # one that runs and does not answer for so long is started again


@dataclass(frozen=True)
class Parts:
    data_dir: Path
    machine: Machine
    notify: Notify
    kafka_options: Mapping[str, str] | None = None  # librdkafka's, to ask a Kafka whose address was given

    def keep(self, name: PartName, address: str | None, port: int | None) -> bool:
        """Whether the part runs, answers and is what was asked for; if not, it is out of the way afterwards."""
        part = load(self.data_dir).part(name)
        if part is None or part.how is How.EXTERNAL or not self.is_running(name):
            return False
        if address:
            self.notify(f"stopping the {name} of {self.data_dir}: an address was given")
        elif port not in (None, part.ports["client"]):
            raise ConfigError(
                f"{name} of {self.data_dir} runs on port {part.ports['client']}, not {port}: stop it first (slipstream down)."
            )
        else:
            try:
                lifecycle.ask(name, part, HANG_TIMEOUT_S)
                return True
            except UnavailableError as error:
                self.notify(f"restarting {name}: {error}")
        self.stop(name)
        return False

    def start(self, name: PartName, address: str | None, port: int | None, timeout_s: float) -> None:
        """Returns when it answers. Whatever was raised, `stop` finds what is to be stopped.

        Raises PrerequisiteError, UnavailableError (with the end of its log) or ConfigError (`port` is taken).
        """
        runner = choose(name, address, self.data_dir, self.machine)
        former = load(self.data_dir).part(name)
        if runner.how is How.EXTERNAL:
            timeout_s = min(timeout_s, GIVEN_TIMEOUT_S)
        for attempt in range(1, PORT_ATTEMPTS + 1):
            ports = choose_ports(runner, name, port, former.ports if former and attempt == 1 else {})
            try:
                part = runner.launch(self.data_dir / name, ports, self.notify, lambda part: self._remember(name, part))
                lifecycle.wait_until_it_answers(name, part, timeout_s, self.kafka_options)
                self.notify(f"{name} answers at {lifecycle.shown_address(part)}")
                return
            except UnavailableError as error:
                if runner.how is How.EXTERNAL:
                    raise UnavailableError(
                        f"{error} Start it, or unset the address to have one started here."
                    ) from error
                said = self._log(name)
                self.stop(name)
                # Between the choice of a free port and its use somebody else may have taken it.
                robbed = not all(port_is_free(number) for number in ports.values())
                if robbed and port is None and attempt < PORT_ATTEMPTS:
                    self.notify(f"another program took a port of {name}: once more, on others")
                    continue
                raise UnavailableError(f"{name} did not start: {error}\n{said}") from error

    def is_running(self, name: PartName) -> bool:
        part = load(self.data_dir).part(name)
        return part is not None and lifecycle.is_running(name, part, self.data_dir, self.machine)

    def stop(self, name: PartName, *, kill: bool = False) -> bool:
        """Whether it ran. Its data and ports are kept; an address that was given is forgotten."""
        state = load(self.data_dir)
        part = state.part(name)
        if part is None:
            return False
        if part.how is How.EXTERNAL:
            save(self.data_dir, state.with_part(name, None))
            return False
        ran = part.running and lifecycle.is_running(name, part, self.data_dir, self.machine)
        if part.running:  # also a container that is only half there
            lifecycle.stop(name, part, self.data_dir, self.machine, kill=kill)
            self._remember(name, msgspec.structs.replace(part, process=None, running=False))
        return ran

    def discard(self, name: PartName) -> None:
        """Deletes the data of a stopped part; its log stays."""
        part = load(self.data_dir).part(name)
        if part and part.how is How.DOCKER:
            lifecycle.compose(self.data_dir, self.machine).discard(name)
        if name == "kafka":
            (self.data_dir / name / "cluster-id").unlink(
                missing_ok=True
            )  # first: without it, storage is formatted again
            shutil.rmtree(self.data_dir / name / "data", ignore_errors=True)

    def _remember(self, name: PartName, part: Part) -> None:
        save(self.data_dir, load(self.data_dir).with_part(name, part))

    def _log(self, name: PartName) -> str:
        part = load(self.data_dir).part(name)
        if part is None:
            return "  (it was not started)"
        return lifecycle.log_of(name, part, self.data_dir, self.machine)


def choose_ports(runner: Runner, name: PartName, asked: int | None, former: Mapping[str, int]) -> dict[str, int]:
    """By listener: the asked one, else that of the last time, else a free one."""
    ports: dict[str, int] = {}
    for listener in runner.listeners:
        if listener == "client" and asked is not None:
            if not port_is_free(asked):
                raise ConfigError(
                    f"Port {asked} of {HOST}, wanted for {name}, is taken by another program: choose another."
                )
            ports[listener] = asked
        elif listener in former and former[listener] not in ports.values() and port_is_free(former[listener]):
            ports[listener] = former[listener]
        else:
            ports[listener] = free_port(avoid=ports.values())
    return ports
