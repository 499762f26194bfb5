"""Kafka and Redis as containers of docker-compose.yml."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import UnavailableError
from slipstream.stack.process import HOST
from slipstream.stack.runner import Notify, Remember
from slipstream.stack.state import How, Part, PartName

ENGINE_TIMEOUT_S = 10.0
PULL_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Compose:
    """One project a data directory, so that two stacks on one machine do not meet."""

    docker: Path
    file: Path
    data_dir: Path

    @property
    def project(self) -> str:
        return f"slipstream-{hashlib.sha256(str(self.data_dir.resolve()).encode()).hexdigest()[:8]}"

    def call(self, *arguments: str, env: Mapping[str, str] | None = None, timeout_s: float = PULL_TIMEOUT_S) -> str:
        """Raises UnavailableError with what Docker said."""
        command = [str(self.docker), "compose", "-f", str(self.file), "-p", self.project, *arguments]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env={**os.environ, **(env or {})},
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(f"Docker did not finish within {timeout_s:.0f} s: {' '.join(command)}") from error
        if done.returncode:
            said = "\n".join("  " + line for line in done.stdout.splitlines()[-12:])
            raise UnavailableError(f"Docker failed (exit status {done.returncode}): {' '.join(command)}\n{said}")
        return done.stdout

    def stop(self, name: PartName, kill: bool) -> None:
        """The container goes, its volume (Kafka's data) stays."""
        if kill:
            self.call("kill", name)
        self.call("rm", "--stop", "--force", name)

    def discard(self, name: PartName) -> None:
        """Deletes the data of a stopped part."""
        self.call("rm", "--stop", "--force", "--volumes", name)  # those of the image
        if name == "kafka":
            self.call("down", "--volumes")  # and the named one

    def is_running(self, name: PartName) -> bool:
        return name in self.call("ps", "--services", "--status", "running", timeout_s=ENGINE_TIMEOUT_S).split()


@dataclass(frozen=True)
class Container:
    """Kafka or Redis from the compose file."""

    compose: Compose
    name: PartName
    how: How = How.DOCKER
    listeners: tuple[str, ...] = ("client",)

    def fetch(self, notify: Notify) -> None:
        notify(f"fetching the image of {self.name}")
        self.compose.call("pull", "--quiet", self.name)

    def launch(self, directory: Path, ports: Mapping[str, int], notify: Notify, remember: Remember) -> Part:
        notify(f"starting {self.name} with Docker (the first time, its image is fetched)")
        port = ports["client"]
        part = Part(
            how=self.how,
            address=f"{HOST}:{port}" if self.name == "kafka" else f"redis://{HOST}:{port}/0",
            ports=dict(ports),
            started_at_ms=int(time.time() * 1000),
        )
        remember(part)
        self.compose.call("up", "-d", self.name, env={f"{self.name.upper()}_PORT": str(port)})
        return part


def why_not(docker: Path) -> str | None:
    """What keeps Docker from being used; None if a working engine and the compose plugin are there."""
    for arguments, trouble in (
        (["info"], "its engine does not answer"),
        (["compose", "version"], "the compose plugin is missing"),
    ):
        try:
            done = subprocess.run(
                [str(docker), *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=ENGINE_TIMEOUT_S
            )
        except (OSError, subprocess.TimeoutExpired):
            return trouble
        # An old client prints the error and still ends with 0 if only a part of `info` failed.
        if done.returncode or b"Cannot connect to the Docker daemon" in done.stdout + done.stderr:
            return trouble
    return None
