"""Runs the stages as processes of their own: starts, watches, kills and stops them, and keeps their logs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from schemas.errors import SlipstreamError

LOG_LINES_IN_ERROR = 15


class StageDiedError(SlipstreamError):
    """A stage ended on its own."""


@dataclass
class Stages:
    """The stages of one deployment, by name. Leaving the context stops all of them.

    Attributes:
        arguments: what comes between `slipstream` and the stage's name: the options of all commands.
        log_dir: one `<name>.log` a stage, appended to.
        environment: added to this process's own.
    """

    arguments: Sequence[str]
    log_dir: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _commands: dict[str, Sequence[str]] = field(default_factory=dict)

    def __enter__(self) -> Stages:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, name: str, *command: str) -> int:
        """Start `slipstream <arguments> <command>` and return its pid."""
        self._commands[name] = command
        self.log_dir.mkdir(parents=True, exist_ok=True)
        with self.log_file(name).open("ab") as log:
            # A session of its own: Ctrl-C reaches only us, and we stop the stages in order.
            process = subprocess.Popen(
                [sys.executable, "-m", "slipstream", *self.arguments, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        self._running[name] = process
        return process.pid

    def kill(self, name: str) -> None:
        """kill -9: the stage has no chance to finish anything."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def restart(self, name: str) -> int:
        """Start a killed stage again as it was."""
        return self.start(name, *self._commands[name])

    def check(self) -> None:
        """Raise if a stage has ended on its own.

        Raises:
            StageDiedError: with its exit code and the end of its log.
        """
        for name, process in self._running.items():
            code = process.poll()
            if code is not None:
                lines = self.log_file(name).read_text(errors="replace").splitlines()[-LOG_LINES_IN_ERROR:]
                raise StageDiedError(
                    f"the stage {name} ended with exit code {code}; the end of {self.log_file(name)}:\n  "
                    + "\n  ".join(lines)
                )

    def log_file(self, name: str) -> Path:
        return self.log_dir / f"{name}.log"

    def stop(self, timeout_s: float = 15) -> None:
        """Ask every stage to end, wait, and kill those that do not."""
        for process in self._running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        for process in self._running.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
