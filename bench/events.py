"""Synthetic engagement events as producers send them, made in numpy batches and the same for every contender of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from schemas.sequence import DEFAULT_CAPACITY, RECORD, Records
from schemas.vocabulary import DEFAULT_ACTIONS, DEFAULT_SURFACES

Spread = Literal["uniform", "zipf", "in turn"]

#: Items are drawn by popularity, as people do: it decides how well sequences compress.
ITEMS = 1_000_000
_ITEM_EXPONENT = 1.2
_USER_EXPONENT = 1.1
#: Between two events of a history.
GAP_MS = 600_000


@dataclass(frozen=True)
class Workload:
    """
    Attributes:
        users: drawn from so many.
        spread: of events over users: uniform, by Zipf's law, or each is of the next user, beginning with number `seed`.
        seed: the same seed gives the same events.
    """

    events: int
    users: int
    spread: Spread = "uniform"
    seed: int = 0

    def drawn_users(self) -> NDArray[np.int64]:
        """`(events,)`: the user of each event, `0 <= user < users`."""
        if self.spread == "in turn":
            return (self.seed + np.arange(self.events)) % self.users
        rng = np.random.default_rng(self.seed)
        if self.spread == "uniform":
            return rng.integers(0, self.users, self.events)
        weights = np.arange(1, self.users + 1) ** -_USER_EXPONENT
        return np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(self.events)).clip(0, self.users - 1)


def user_key(number: int) -> bytes:
    return b"user-%09d" % number


def random_records(n: int, first_ms: int, gap_ms: int, rng: np.random.Generator) -> Records:
    """`(n,)` of RECORD, one every `gap_ms` from `first_ms` on."""
    records = np.empty(n, RECORD)
    records["timestamp_ms"] = first_ms + gap_ms * np.arange(n)
    records["item_id"] = rng.zipf(_ITEM_EXPONENT, n) % ITEMS
    records["action"] = rng.integers(1, len(DEFAULT_ACTIONS), n)
    records["surface"] = rng.integers(1, len(DEFAULT_SURFACES), n)
    return records


def continued(history: Records, more: int, rng: np.random.Generator) -> Records:
    """The sequence after so many more events; what no longer fits into it is gone."""
    new = random_records(more, int(history[-1]["timestamp_ms"]) + GAP_MS, GAP_MS, rng)
    return np.concatenate([history, new])[-DEFAULT_CAPACITY:]


def raw_events(workload: Workload, first_ms: int) -> tuple[list[bytes], list[bytes], Records, NDArray[np.int64]]:
    """Keys and JSON values as producers send them, the records that they stand for, and the user of each: all `(events,)`.

    One millisecond apart, from `first_ms` on.
    """
    who = workload.drawn_users()
    records = random_records(workload.events, first_ms, 1, np.random.default_rng(workload.seed + 1))
    actions, surfaces = [name.encode() for name in DEFAULT_ACTIONS], [name.encode() for name in DEFAULT_SURFACES]
    keys = [user_key(user) for user in who.tolist()]
    values = [
        b'{"user_id":"%s","item_id":%d,"action":"%s","surface":"%s","timestamp_ms":%d}'
        % (key, item, actions[action], surfaces[surface], at_ms)
        for key, (at_ms, item, action, surface) in zip(keys, records.tolist(), strict=True)
    ]
    return keys, values, records, who


def histories(users: int, length: int, end_ms: int, seed: int = 0) -> Iterator[tuple[bytes, Records]]:
    """Each user with a sequence of `length` events before `end_ms`."""
    first_ms = end_ms - length * GAP_MS
    rng = np.random.default_rng(seed + 2)
    for start in range(0, users, 1000):
        n = min(1000, users - start)
        records = random_records(n * length, 0, 0, rng).reshape(n, length)
        records["timestamp_ms"] = first_ms + GAP_MS * np.arange(length) + rng.integers(0, GAP_MS, (n, length))
        for i in range(n):
            yield user_key(start + i), records[i]
