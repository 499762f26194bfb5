"""What can be done to a part that was started, however it was: does it run, does it answer, stop it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from schemas.errors import PrerequisiteError, UnavailableError
from slipstream.stack import probe, process
from slipstream.stack.choose import Machine
from slipstream.stack.docker import Compose
from slipstream.stack.state import How, Part, PartName

ASK_TIMEOUT_S = 2.0
STOP_TIMEOUT_S = {"kafka": 20.0, "redis": 5.0}


def is_running(name: PartName, part: Part, data_dir: Path, machine: Machine) -> bool:
    """Whether it is there at all; for an address that was given: True."""
    if part.how is How.PROCESS:
        return part.running and part.process is not None and process.find(part.process) is not None
    if part.how is How.DOCKER:
        try:
            return part.running and compose(data_dir, machine).is_running(name)
        except (UnavailableError, PrerequisiteError):  # no engine, no containers
            return False
    return True


def ask(name: PartName, part: Part, timeout_s: float, kafka_options: Mapping[str, str] | None = None) -> None:
    """`kafka_options` are for an address that was given: what is started here needs none.

    Raises UnavailableError unless it answers, and is not a stranger that was given its port."""
    if name == "kafka":
        options = kafka_options if part.how is How.EXTERNAL else None
        cluster_id = probe.kafka_cluster_id(part.address, timeout_s, options)
        if part.cluster_id and cluster_id != part.cluster_id:
            raise UnavailableError(
                f"Another Kafka (cluster {cluster_id}, not {part.cluster_id}) answers at {part.address}."
            )
    elif part.process:
        pid = probe.redis_process_id(part.address, timeout_s)
        if pid != part.process.pid:
            raise UnavailableError(f"Another Redis (pid {pid}, not {part.process.pid}) answers at {part.address}.")
    else:
        probe.redis_ping(part.address, timeout_s)


def wait_until_it_answers(
    name: PartName, part: Part, timeout_s: float, kafka_options: Mapping[str, str] | None = None
) -> None:
    """Raises UnavailableError if its process ends meanwhile, or after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        left_s = max(0.1, deadline - time.monotonic())
        try:
            if part.how is How.EXTERNAL or process.is_listening(
                part.ports["client"]
            ):  # cheaper than a client for each try
                ask(name, part, min(ASK_TIMEOUT_S, left_s), kafka_options)
                if name == "kafka" and part.how is not How.EXTERNAL:
                    probe.wake_group_coordinator(part.address, left_s)
                return
            error = UnavailableError(f"Nothing listens at {part.address}.")
        except UnavailableError as caught:
            error = caught
        if part.process and process.find(part.process) is None:
            raise UnavailableError(f"{name} ended before it answered at {part.address}.") from error
        if time.monotonic() >= deadline:
            raise UnavailableError(f"{error} (waited {timeout_s:.0f} s)") from error
        time.sleep(0.05)


def stop(name: PartName, part: Part, data_dir: Path, machine: Machine, *, kill: bool = False) -> None:
    """Stops what was started here; an address that was given is left alone. Returns when the process is gone."""
    if part.how is How.PROCESS and part.process:
        if kill:
            process.kill([part.process])
        else:
            process.stop([part.process], STOP_TIMEOUT_S[name])
    elif part.how is How.DOCKER:
        compose(data_dir, machine).stop(name, kill)


def compose(data_dir: Path, machine: Machine) -> Compose:
    docker = machine.program("docker")
    if docker is None:
        raise PrerequisiteError(
            f"{data_dir} holds a stack that was started with Docker, but docker is not on the PATH any more."
        )
    return Compose(docker, machine.checkout / "docker-compose.yml", data_dir)


def shown_address(part: Part) -> str:
    """Without a password."""
    return probe.masked(part.address) if "://" in part.address else part.address


def log_of(name: PartName, part: Part, data_dir: Path, machine: Machine) -> str:
    """The last lines that it wrote since its last start."""
    if part.how is How.DOCKER:
        try:
            return compose(data_dir, machine).call("logs", "--no-color", "--tail", "15", name, timeout_s=10.0)
        except UnavailableError as error:
            return f"  (no log: {error})"
    return process.log_tail(Path(part.log) if part.log else None)
