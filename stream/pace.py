"""When each event of a replay is due, and in which chunks they are sent. Pure: the clock is the replay's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigError


@dataclass(frozen=True)
class FixedRate:
    """So many events a second, whatever their timestamps."""

    events_per_s: float

    def __post_init__(self) -> None:
        _require_positive("the rate", self.events_per_s)


@dataclass(frozen=True)
class ScaledTime:
    """As the timestamps have it, `speed` times as fast, and no pause longer than `max_gap_s` seconds of real time.

    Half of all hours of a log may be empty: an uncapped replay of them sleeps most of its time.
    """

    speed: float = 1.0
    max_gap_s: float = 1.0

    def __post_init__(self) -> None:
        _require_positive("the speed", self.speed)
        _require_positive("the longest gap", self.max_gap_s)


@dataclass(frozen=True)
class AsFastAsPossible:
    """All events are due at once."""


Pace = FixedRate | ScaledTime | AsFastAsPossible


def due_s(pace: Pace, timestamps_ms: NDArray[np.int64]) -> NDArray[np.float64]:
    """`(n,)` f64, ascending: seconds after the start at which each event of `timestamps_ms` `(n,)` is due.

    An event that is older than the one before it in the log is due at the same time.
    """
    n = len(timestamps_ms)
    match pace:
        case FixedRate(events_per_s):
            return np.arange(n) / events_per_s
        case ScaledTime(speed, max_gap_s):
            gaps_s = np.zeros(n)
            # Event k's gap follows the latest time until then: an old event in between neither waits nor makes the next one wait.
            gaps_s[1:] = np.diff(np.maximum.accumulate(timestamps_ms)) / (1000 * speed)
            return np.cumsum(np.minimum(gaps_s, max_gap_s))
        case AsFastAsPossible():
            return np.zeros(n)


def chunk_starts(due_s: NDArray[np.float64], chunk_s: float, max_events: int) -> NDArray[np.int64]:
    """`(c + 1,)` i64: chunk i is [starts[i], starts[i + 1]), n its last value.

    A chunk holds what is due within one window of `chunk_s` seconds, `max_events` at most. So the chunks depend on the schedule
    alone: a sender that fell behind sends the same chunks, without sleeping, until it has caught up.
    """
    n = len(due_s)
    window = np.floor_divide(due_s, chunk_s)  # (n,)
    new_window = np.ones(n, bool)
    new_window[1:] = window[1:] != window[:-1]
    first = np.flatnonzero(new_window)
    place = np.arange(n) - np.repeat(first, np.diff(np.append(first, n)))  # in the window
    return np.append(np.flatnonzero(place % max_events == 0), n)


def _require_positive(what: str, value: float) -> None:
    if not (value > 0 and np.isfinite(value)):
        raise ConfigError(f"{what} of a replay must be a number above 0, not {value}")
