"""Backfill, its pure half: what of a partition is past, how much of it is worked off at a time, and how long it will last.

A partition that is far behind is read at two places at once: live records from where it ended when it was assigned, and the past
up to there. Any order between the two is right, since a write with an older fence than the state's changes nothing. What is
decided here is that live users do not wait:

- While live records come, the past may take a share of the worker's time. While none come, it may have all of it, in longer runs.
- It is worked off in runs so short that a live record that comes meanwhile does not wait long behind one: of so many events that
  they may have to encode, which grow while runs are shorter than they may be, and shrink when they are longer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple

from schemas.errors import ConfigError

#: Live records come as long as the last one is not older than this.
_QUIET_S = 1.0
#: From one run to the next.
_MAX_GROWTH = 2.0
#: A run may be so much longer while no live record comes, and where the model would otherwise have less than half of its time.
_STRETCH = 5.0
#: For how long progress is averaged.
_AVERAGED_S = 20.0


@dataclass(frozen=True)
class BackfillConfig:
    """
    Attributes:
        from_records: a partition whose committed offset is more offsets behind its end is backfilled.
        share: of the worker's time, the most that backfill takes while live records come.
        run_ms: how long one run of it should take, as far as it can be told; one user's is never split.
        live_first: False reads every partition in its order, for comparison only.
    """

    from_records: int = 200
    share: float = 0.5
    run_ms: float = 20.0
    live_first: bool = True

    def __post_init__(self) -> None:
        if self.from_records < 0 or not 0 < self.share <= 1 or self.run_ms <= 0:
            raise ConfigError(
                "backfill: from_records must not be negative, share above 0 and at most 1, and run_ms above 0; got "
                f"{self.from_records}, {self.share} and {self.run_ms} (settings `backfill_...`)"
            )


class Range(NamedTuple):
    """Offsets of one partition, `end` not included."""

    start: int
    end: int


def backfill_range(committed: int | None, low: int, end: int, config: BackfillConfig) -> Range | None:
    """What of a partition is to be backfilled; None: it is read on from `committed`, in its order.

    Args:
        committed: the group's offset; None if there is none.
        low, end: of the partition, now.
    """
    start = low if committed is None or committed > end else max(committed, low)  # as auto.offset.reset=earliest does
    behind = end - start
    return Range(start, end) if config.live_first and behind > config.from_records else None


class Pacer:
    """Says when the next run of backfill may begin, and how much goes into it."""

    def __init__(self, config: BackfillConfig, clock: Callable[[], float] = monotonic) -> None:
        self._config = config
        self._clock = clock
        self._live_s = clock()  # nobody knows yet whether there are any
        self._next_s = 0.0
        self._events = 1.0  # that a run is of while live records come
        self._stretch = 1.0

    def live_came(self) -> None:
        self._live_s = self._clock()

    def pause_s(self) -> float:
        """Until the next run may begin; 0: now."""
        now_s = self._clock()
        return max(0.0, min(self._next_s, self._live_s + _QUIET_S) - now_s)

    def begin(self) -> float:
        """A run begins: that so many events may have to be encoded in it; one user who has more is a run too."""
        self._stretch = _STRETCH if self._clock() >= self._live_s + _QUIET_S else 1.0
        return self._events * self._stretch

    def ran(self, seconds: float, graph_s: float, events: int, encoded: int) -> None:
        """The run is over.

        Args:
            graph_s: of its time, what the model took.
            events: that it might have had to encode; of them it `encoded` some, and found the others in states that were there.
        """
        self._next_s = self._clock() + seconds * (1 / self._config.share - 1)
        run_s, base = self._config.run_ms / 1000, events / self._stretch
        may_take_s = max(self._stretch * run_s, min(2 * (seconds - graph_s), _STRETCH * run_s))
        growth = math.sqrt(may_take_s / seconds)  # rooted, since one run says little
        if growth < 1:
            self._events = max(1.0, min(self._events, base) * max(growth, 1 / _MAX_GROWTH))
        elif 2 * encoded >= events:  # one that found its states made was quick for that: the next may have to make them
            grown = max(self._events, base) * min(growth, _MAX_GROWTH)
            self._events = max(self._events, min(grown, _MAX_GROWTH * base))


class Progress:
    """How fast the past is worked off.

    Attributes:
        per_s: offsets a second; 0: not known yet.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._began_s = self._as_of_s = clock()
        self._passed = 0
        self.per_s = 0.0

    def update(self, passed: int) -> None:
        """
        Args:
            passed: offsets so far, of all partitions.
        """
        now_s = self._clock()
        elapsed_s, moved = now_s - self._as_of_s, passed - self._passed
        if elapsed_s <= 0:
            return
        self._as_of_s, self._passed = now_s, passed
        newest = max(1 - math.exp(-elapsed_s / _AVERAGED_S), elapsed_s / (now_s - self._began_s))
        self.per_s += newest * (moved / elapsed_s - self.per_s)

    def left_s(self, left: int) -> float | None:
        """Seconds for so many offsets; None: not known yet."""
        return left / self.per_s if self.per_s else None
