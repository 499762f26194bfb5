"""The events of a chaos run, drawn by a seed. Pure, but for the clock that their timestamps go on from.

Among them: users with more events than a sequence keeps, ties, late events, events that are sent twice, requests to forget a
user, and messages that nobody can read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from schemas.log import EventLog
from schemas.sequence import RECORD
from schemas.vocabulary import Vocabulary

#: So many events of a thousand go to a few users each, whose sequences are full before the end.
_HEAVY_SHARE = 0.15
_EVENTS_PER_HEAVY_USER = 500
_EVENTS_PER_USER = 25
_TIE_MS = 100
_LATE_SHARE = 0.05
_LATE_MS = 600_000
_FORGET_SHARE = 0.002
#: Events that flow on while the last faults are not over, at a time.
_MORE_S = 3.0


@dataclass(frozen=True)
class Load:
    """n events in the order of their sending, and m requests to forget a user among them.

    Attributes:
        events_per_s: at which they are sent.
        forget_at: `(m,)` i64, ascending: the event with which each request is sent.
        forget_user: `(m,)` i64, index into `log.users`.
        forget_ms: `(m,)` i64, its timestamp.
    """

    log: EventLog
    events_per_s: float
    forget_at: NDArray[np.int64]
    forget_user: NDArray[np.int64]
    forget_ms: NDArray[np.int64]


def make_load(events: int, users: int, events_per_s: float, start_ms: int, seed: tuple[int, ...]) -> Load:
    """Draw the events. Timestamps go on from `start_ms` as the events will; a part of them is older, and many are equal."""
    rng = np.random.default_rng([*seed, 2])
    heavy = max(1, int(users * _HEAVY_SHARE * _EVENTS_PER_USER / _EVENTS_PER_HEAVY_USER))

    def draw_users(n: int) -> NDArray[np.int64]:
        return np.where(rng.random(n) < _HEAVY_SHARE, rng.integers(0, heavy, n), rng.integers(0, users, n))

    user_index = draw_users(events)  # (n,)
    sent_ms = start_ms + (np.arange(events) * 1000 / events_per_s).astype(np.int64) // _TIE_MS * _TIE_MS  # (n,)
    late_ms = np.where(rng.random(events) < _LATE_SHARE, rng.integers(0, _LATE_MS, events), 0)
    vocabulary = Vocabulary()
    records = np.empty(events, RECORD)
    records["timestamp_ms"] = sent_ms - late_ms
    records["item_id"] = rng.integers(0, 1 << 40, events)
    records["action"] = rng.integers(0, len(vocabulary.actions), events)
    records["surface"] = rng.integers(0, len(vocabulary.surfaces), events)

    forgets = int(events * _FORGET_SHARE)
    forget_at = np.sort(rng.integers(0, events, forgets))  # (m,)
    log = EventLog([f"user-{i}" for i in range(users)], user_index.astype(np.int32), records, vocabulary)
    return Load(
        log, events_per_s, forget_at, draw_users(forgets), sent_ms[forget_at] - rng.integers(0, _LATE_MS // 10, forgets)
    )


def users_for(events: int) -> int:
    return max(10, events // _EVENTS_PER_USER)


def loads(events: int, events_per_s: float, seed: int) -> Iterator[Load]:
    """So many events, then more of the same users, a few seconds' worth at a time and without end."""
    users = users_for(events)
    yield make_load(events, users, events_per_s, now_ms(), (seed,))
    for number in count(1):
        yield make_load(max(1, int(_MORE_S * events_per_s)), users, events_per_s, now_ms(), (seed, number))


def now_ms() -> int:
    return time.time_ns() // 1_000_000
