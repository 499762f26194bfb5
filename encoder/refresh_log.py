"""An optional file with a JSON line per refreshed user, for people and programs that plot freshness. No user ids.

    {"arrived_ms": 1767225600000, "written_ms": 1767225600021, "kind": "append", "events": 1, "partition": 3, "offset": 4711}

`arrived_ms` is when the oldest raw event that the refresh folded in reached the broker, `written_ms` since when the state is
readable. A line is written when its state is, so that a kill -9 loses at most the lines of one batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import msgspec

from encoder.changelog import Folded
from encoder.engine import Done
from schemas.errors import ConfigError


class _Line(msgspec.Struct, gc=False):
    arrived_ms: int
    written_ms: int
    kind: str
    events: int
    partition: int
    offset: int


class RefreshLog:
    """Appends to a file, which several workers may share: each batch is one write."""

    def __init__(self, path: Path | None) -> None:
        """
        Args:
            path: None writes nothing.

        Raises:
            ConfigError: the file cannot be opened.
        """
        self._fd: int | None = None
        self._encoder = msgspec.json.Encoder()
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise ConfigError(f"refresh log {path}: cannot be written: {error.strerror}; name another file") from None

    def write(self, refreshed: Iterable[tuple[Folded, Done]]) -> None:
        """A line for each that was written to the store."""
        if self._fd is None:
            return
        lines = [
            _Line(
                folded.oldest_arrived_ms,
                done.written_ms,
                str(done.kind),
                done.events,
                folded.update.fence.partition,
                folded.update.fence.offset,
            )
            for folded, done in refreshed
            if done.written_ms
        ]
        if lines:
            os.write(self._fd, self._encoder.encode_lines(lines))

    def __enter__(self) -> RefreshLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd is not None:
            os.close(self._fd)
