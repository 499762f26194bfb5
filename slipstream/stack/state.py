"""What runs in a data directory: remembered in `stack.json`, so that another command, or the next one after a crash, finds it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

import msgspec

from schemas.errors import ConfigError
from slipstream.stack.process import ProcessId

STATE_FILE = "stack.json"
LOCK_FILE = "stack.lock"
VERSION = 1

PartName = Literal["kafka", "redis"]
PARTS: tuple[PartName, ...] = ("kafka", "redis")


class How(StrEnum):
    EXTERNAL = "external"  # an address from the environment: never started, never stopped
    DOCKER = "docker"
    PROCESS = "process"  # Java or redis-server on this machine


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Kafka or Redis as it was started, or was last started if `running` is false (its ports are used again)."""

    how: How
    address: str  # bootstrap servers or a Redis URL
    ports: dict[str, int] = {}  # by listener
    process: ProcessId | None = None  # of How.PROCESS
    cluster_id: str | None = None  # of a Kafka of How.PROCESS: tells it from a stranger on the same port
    log: str | None = None
    started_at_ms: int | None = None
    running: bool = True  # false: stopped on purpose


class StackState(msgspec.Struct, frozen=True, kw_only=True):
    version: int = VERSION
    kafka: Part | None = None
    redis: Part | None = None

    def part(self, name: PartName) -> Part | None:
        return self.kafka if name == "kafka" else self.redis

    def with_part(self, name: PartName, part: Part | None) -> StackState:
        if name == "kafka":
            return msgspec.structs.replace(self, kafka=part)
        return msgspec.structs.replace(self, redis=part)


@dataclass(frozen=True)
class Stack:
    """A Kafka and a Redis that answer."""

    kafka_bootstrap: str
    redis_url: str
    data_dir: Path
    kafka: Part
    redis: Part


def load(data_dir: Path) -> StackState:
    """Raises ConfigError for a file that cannot be read; an absent one is an empty state."""
    file = data_dir / STATE_FILE
    try:
        state = msgspec.json.decode(file.read_bytes(), type=StackState)
    except FileNotFoundError:
        return StackState()
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(
            f"{file} cannot be read ({error}). It names the processes of the local stack: end them by hand if they still run "
            f"(`ps -ef | grep {data_dir}`), then delete the file."
        ) from error
    if state.version != VERSION:
        raise ConfigError(
            f"{file} has version {state.version}, this release reads {VERSION}: use another data directory."
        )
    return state


def save(data_dir: Path, state: StackState) -> None:
    """Atomic: a reader sees the old file or the new one."""
    data_dir.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=STATE_FILE, dir=data_dir)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(state), indent=2))
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(data_dir / STATE_FILE)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """One process at a time. The lock goes with its holder, so one that was killed leaves none behind."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
