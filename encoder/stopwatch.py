"""Where the time goes: seconds by part, summed up until somebody takes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Stopwatch:
    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        began = perf_counter()
        try:
            yield
        finally:
            self._seconds[part] = self._seconds.get(part, 0.0) + perf_counter() - began

    def seconds(self, part: str) -> float:
        """Of one part, since it was taken last."""
        return self._seconds.get(part, 0.0)

    def take(self) -> dict[str, float]:
        """The sums since the last call."""
        taken, self._seconds = self._seconds, {}
        return taken
