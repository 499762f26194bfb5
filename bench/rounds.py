"""Several ways to do the same, measured in turns, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

#: Does it so many times and returns the seconds of each.
Way = Callable[[int], list[float]]

_TURN_S = 0.2


def way(once: Callable[[], object]) -> Way:
    def times(calls: int) -> list[float]:
        taken = []
        for _ in range(calls):
            began_s = time.perf_counter()
            once()
            taken.append(time.perf_counter() - began_s)
        return taken

    return times


def in_turns(ways: Mapping[str, Way], seconds: float) -> dict[str, NDArray[np.float64]]:
    """Each way for so long, a fifth of a second at a time.

    Returns:
        Milliseconds of each call; the first three are not counted.
    """
    calls = {name: max(1, int(_TURN_S / min(measure(3)))) for name, measure in ways.items()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    while min(map(sum, taken.values()), default=seconds) < seconds:
        for name, measure in ways.items():
            taken[name] += measure(calls[name])
    return {name: 1e3 * np.array(of) for name, of in taken.items()}


def percentiles(ms: NDArray[np.float64]) -> dict[str, float]:
    return {"p50": float(np.percentile(ms, 50)), "p99": float(np.percentile(ms, 99)), "calls": len(ms)}
