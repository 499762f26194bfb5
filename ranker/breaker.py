"""The circuit breaker of a reader: when Redis does not answer in time, calls fail at once for a while instead of waiting each.

A ranker whose every request waits for the whole deadline of a Redis that is slow has spent its time before it can fall back.
After `failures` calls in a row without an answer the circuit is open: calls fail at once. After `open_s` one call is let through;
if it is answered the circuit is closed again, else it stays open for as long again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from schemas.errors import ConfigError

DEFAULT_FAILURES = 5
DEFAULT_OPEN_S = 1.0


class Breaker:
    """Threads and readers may share it: those of one Redis."""

    def __init__(
        self,
        failures: int = DEFAULT_FAILURES,
        open_s: float = DEFAULT_OPEN_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Raises:
            ConfigError: a value that is not positive.
        """
        if failures < 1 or open_s <= 0:
            raise ConfigError(f"a circuit breaker of {failures} failures and {open_s} s: both must be positive")
        self._most, self._open_s, self._clock_s = failures, open_s, clock_s
        self._lock = threading.Lock()
        self._failures = 0
        self._probe_at_s = 0.0

    @property
    def is_open(self) -> bool:
        return self._failures >= self._most

    def admits(self) -> bool:
        """Whether a call may ask Redis now. While the circuit is open, one call in `open_s` may."""
        if not self.is_open:
            return True
        with self._lock:
            now_s = self._clock_s()
            if self.is_open and now_s < self._probe_at_s:
                return False
            self._probe_at_s = now_s + self._open_s  # this call is the probe; the next comes if it has no answer either
            return True

    def answered(self) -> None:
        """Redis answered a call, whatever it said."""
        if self._failures:
            with self._lock:
                self._failures = 0

    def failed(self) -> None:
        """A call got no answer."""
        with self._lock:
            self._failures += 1
            self._probe_at_s = self._clock_s() + self._open_s
