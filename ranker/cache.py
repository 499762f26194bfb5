"""States that were read a moment ago, kept in the ranker's process for a limited time: for users who ask again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from cachetools import TTLCache

from schemas.errors import ConfigError
from schemas.state import Header, State

DEFAULT_MAX_BYTES = 64 << 20


class Decoded(NamedTuple):
    """A verified value.

    Attributes:
        state: None if only the embedding was read.
    """

    header: Header
    state: State | None

    @property
    def bytes(self) -> int:
        """About what it takes."""
        return 512 + self.header.embedding.nbytes + (0 if self.state is None else self.state.slots.nbytes)


class StateCache:
    """Least recently used states go first. Threads and readers of one Redis may share it.

    A row from here is up to `keep_ms` older than Redis's; its age says so, since ages count from what is in the state.
    """

    def __init__(
        self, keep_ms: int = 1000, max_bytes: int = DEFAULT_MAX_BYTES, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            keep_ms: a state is read again after so long.

        Raises:
            ConfigError: a value that is not positive.
        """
        if keep_ms < 1 or max_bytes < 1:
            raise ConfigError(f"a cache of {max_bytes} bytes for {keep_ms} ms: both must be positive")
        self._entries: TTLCache[bytes, Decoded] = TTLCache(
            max_bytes, keep_ms / 1000, timer=clock_s, getsizeof=lambda kept: kept.bytes
        )
        self._lock = threading.Lock()

    def get(self, key: bytes, embedding_only: bool) -> Decoded | None:
        """What was kept under a Redis key, if it is enough."""
        with self._lock:
            kept = self._entries.get(key)
        return kept if kept is not None and (embedding_only or kept.state is not None) else None

    def put(self, key: bytes, value: Decoded) -> None:
        with self._lock:
            if value.bytes <= self._entries.maxsize:
                self._entries[key] = value

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
