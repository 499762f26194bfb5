"""Feast's Redis online store beside ours, in a process of its own (bench/contenders/feast_app.py)."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType

import msgspec

from bench.environments import CONTENDERS
from schemas.errors import SlipstreamError


class Feast:
    """`users` embeddings of `width` floats in a Redis, and a process that reads them when it is asked to."""

    def __init__(self, python: Path, address: str, directory: Path, users: int, width: int) -> None:
        """
        Args:
            address: HOST:PORT of the Redis.

        Raises:
            SlipstreamError: it ended; with the end of its log.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._log = directory / "feast.log"
        command = [str(python), str(CONTENDERS / "feast_app.py"), address, str(directory), str(users), str(width)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=directory
            )
        while self._line() != "ready":
            pass  # whatever its libraries print

    def __enter__(self) -> Feast:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def read(self, users: int, calls: int) -> list[float]:
        """Read the first `users` embeddings so many times; the seconds that each took."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{users} {calls}\n")
        self._process.stdin.flush()
        return msgspec.json.decode(self._line(), type=list[float])

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            end = self._log.read_text(errors="replace").strip()[-1000:]
            raise SlipstreamError(f"Feast ended with exit code {self._process.wait()}; the end of {self._log}:\n{end}")
        return line.strip()
