"""Small event logs whose right answers a test can work out event by event."""

from __future__ import annotations

import numpy as np

from schemas.log import EventLog
from schemas.sequence import RECORD
from schemas.vocabulary import Vocabulary


def random_log(users: int = 6, items: int = 12, events: int = 120, seed: int = 0, repeats: bool = True) -> EventLog:
    """Events of random users at distinct times, with pauses within and beyond a visit."""
    rng = np.random.default_rng(seed)
    records = np.zeros(events, RECORD)
    records["timestamp_ms"] = 1_000_000 + np.cumsum(rng.choice([700, 40_000, 400_000, 4_000_000], events))
    user_index = rng.integers(0, users, events).astype(np.int32)
    records["item_id"] = 10 * rng.integers(1, items + 1, events)
    if not repeats:
        for user in range(users):
            mine = np.flatnonzero(user_index == user)
            records["item_id"][mine] = 10 * (1 + rng.permutation(max(items, len(mine))))[: len(mine)]
    records["action"] = rng.choice([1, 4], events)
    return EventLog([f"user-{i}" for i in range(users)], user_index, records, Vocabulary())


def circle_log(users: int = 40, events: int = 40, items: int = 60, seed: int = 0) -> EventLog:
    """Every user goes round a circle of items from a random place: who knows the last item knows the next one."""
    rng = np.random.default_rng(seed)
    records = np.zeros(users * events, RECORD)
    user_index = np.tile(np.arange(users, dtype=np.int32), events)
    step = np.repeat(np.arange(events), users)
    records["timestamp_ms"] = 1_000_000 + 60_000 * step + user_index
    records["item_id"] = 7 * ((rng.integers(0, items, users)[user_index] + step) % items)
    records["action"] = 1
    return EventLog([f"user-{i}" for i in range(users)], user_index, records, Vocabulary())


def in_order(log: EventLog) -> list[list[tuple[int, int]]]:
    """By user: (time, item id) of each event, ascending."""
    histories: list[list[tuple[int, int]]] = [[] for _ in log.users]
    for user, record in zip(log.user_index.tolist(), log.records, strict=True):
        histories[user].append((int(record["timestamp_ms"]), int(record["item_id"])))
    return [sorted(history) for history in histories]
