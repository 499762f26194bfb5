"""The events of a chaos run: everything that the stages promise to stand is among them."""

from __future__ import annotations

from itertools import islice

import numpy as np

from bench.chaos.load import loads, make_load, users_for
from schemas.sequence import DEFAULT_CAPACITY

START_MS = 1_800_000_000_000


def test_full_sequences_ties_late_events_and_requests_to_forget() -> None:
    load = make_load(100_000, users_for(100_000), 10_000, START_MS, (7,))
    log = load.log
    assert len(log) == 100_000
    counts = np.bincount(log.user_index, minlength=len(log.users))
    assert (counts > DEFAULT_CAPACITY).sum() >= 10
    assert (counts > 0).mean() > 0.99
    times = log.records["timestamp_ms"]
    assert (np.diff(times) < 0).any()
    of_heaviest = times[log.user_index == counts.argmax()]
    assert len(np.unique(of_heaviest)) < len(of_heaviest)
    assert times.max() <= START_MS + 10_000
    assert len(load.forget_at) == len(load.forget_user) == len(load.forget_ms) == 200
    assert (np.diff(load.forget_at) >= 0).all()
    assert (load.forget_ms <= START_MS + 10_000).all()
    forgotten = np.isin(log.user_index, load.forget_user)
    assert (times[forgotten] > START_MS).any(), "some happen after, some before a request"


def test_a_seed_is_a_load() -> None:
    one, same, other = (make_load(1000, 40, 100, START_MS, seed) for seed in ((1,), (1,), (1, 1)))
    assert one.log.records.tobytes() == same.log.records.tobytes()
    assert one.log.records.tobytes() != other.log.records.tobytes()


def test_more_of_the_same_users_flow_until_nobody_asks_any_more() -> None:
    first, more, again = islice(loads(1000, 100, seed=1), 3)
    assert (len(first.log), len(more.log), len(again.log)) == (1000, 300, 300)
    assert first.log.users == more.log.users == again.log.users
    assert more.log.records.tobytes() != again.log.records.tobytes()
    assert {load.events_per_s for load in (first, more, again)} == {100}
