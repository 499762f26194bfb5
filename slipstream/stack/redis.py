"""Redis on this machine: `redis-server` as a process."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import msgspec

from slipstream.stack.process import HOST, ProcessId, spawn
from slipstream.stack.runner import Notify, Remember
from slipstream.stack.state import How, Part

# Nothing is kept on disk: every state can be made again from the changelog, and snapshots would compete for the two cores.
SETTINGS: Mapping[str, str] = MappingProxyType(
    {"bind": HOST, "protected-mode": "yes", "save": '""', "appendonly": "no"}
)


@dataclass(frozen=True)
class RedisServer:
    binary: Path
    settings: Mapping[str, str] = field(default_factory=lambda: SETTINGS)
    how: How = How.PROCESS
    listeners: tuple[str, ...] = ("client",)

    def fetch(self, notify: Notify) -> None:
        pass

    def launch(self, directory: Path, ports: Mapping[str, int], notify: Notify, remember: Remember) -> Part:
        directory.mkdir(parents=True, exist_ok=True)
        config = directory / "redis.conf"
        lines = [f"{key} {value}" for key, value in self.settings.items()]
        config.write_text(
            "\n".join(["# Written at each start by slipstream/stack/redis.py", f"port {ports['client']}", *lines, ""])
        )
        log = directory / "redis.log"
        part = Part(
            how=self.how,
            address=f"redis://{HOST}:{ports['client']}/0",
            ports=dict(ports),
            log=str(log),
            started_at_ms=int(time.time() * 1000),
        )

        def started(process: ProcessId) -> Part:
            return msgspec.structs.replace(part, process=process)

        return started(
            spawn([str(self.binary), str(config)], log, os.environ, lambda process: remember(started(process)))
        )
