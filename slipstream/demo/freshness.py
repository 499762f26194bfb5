"""Reads the encoder's refresh log as it grows: one JSON line per refreshed user, no user ids in it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray


class Refresh(msgspec.Struct, frozen=True, gc=False):
    """One line. `arrived_ms`: when the oldest raw event that it folded in reached the broker; `written_ms`: readable since."""

    arrived_ms: int
    written_ms: int
    kind: str


class RefreshLog:
    """The refreshes of events that arrived at or after `since_ms`, each read once."""

    def __init__(self, path: Path, since_ms: int) -> None:
        self._path = path
        self._since_ms = since_ms
        self._file: BinaryIO | None = None
        self._decode = msgspec.json.Decoder(Refresh).decode
        self._unfinished = b""
        self.kinds: Counter[str] = Counter()
        self._arrived_ms: list[int] = []
        self._written_ms: list[int] = []

    def poll(self) -> None:
        """Take in what was written since the last call. A line that is still being written waits for the next one."""
        if self._file is None:
            if not self._path.exists():
                return
            self._file = self._path.open("rb")
        *lines, self._unfinished = (self._unfinished + self._file.read()).split(b"\n")
        for line in lines:
            try:
                refresh = self._decode(line)
            except msgspec.DecodeError:  # a line cut by a kill -9 of the encoder
                continue
            if refresh.arrived_ms >= self._since_ms:
                self.kinds[refresh.kind] += 1
                self._arrived_ms.append(refresh.arrived_ms)
                self._written_ms.append(refresh.written_ms)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def arrived_ms(self) -> NDArray[np.int64]:
        return np.asarray(self._arrived_ms, np.int64)

    @property
    def freshness_ms(self) -> NDArray[np.int64]:
        """`written_ms - arrived_ms` per refresh, ms."""
        return np.asarray(self._written_ms, np.int64) - self.arrived_ms

    def recent_freshness_ms(self, last: int = 1000) -> NDArray[np.int64]:
        return np.asarray(self._written_ms[-last:], np.int64) - np.asarray(self._arrived_ms[-last:], np.int64)


def percentiles(freshness_ms: NDArray[np.integer | np.floating]) -> dict[str, float]:
    """p50, p90, p99 and max in ms; empty if there was no refresh."""
    if not len(freshness_ms):
        return {}
    p50, p90, p99 = np.percentile(freshness_ms, [50, 90, 99]).tolist()
    return {"p50": p50, "p90": p90, "p99": p99, "max": float(freshness_ms.max())}
