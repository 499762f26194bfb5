"""The next sequences that the refresh benchmark gives its users, and how rounds are added up."""

from __future__ import annotations

import numpy as np

from bench.events import random_records
from bench.refresh import Cost, _next, _sum

RNG = np.random.default_rng(0)


def test_more_events_come_after_the_last_and_push_out_the_first() -> None:
    history = random_records(255, 1000, 600_000, RNG)
    longer = _next(history, 3, 0, RNG)
    assert len(longer) == 256
    np.testing.assert_array_equal(longer[:-3], history[2:])
    assert (np.diff(longer["timestamp_ms"]) > 0).all()


def test_a_late_event_comes_before_the_last_five() -> None:
    history = random_records(100, 1000, 600_000, RNG)
    later = _next(history, 0, 5, RNG)
    assert len(later) == 101
    np.testing.assert_array_equal(later[:95], history[:95])
    np.testing.assert_array_equal(later[-5:], history[-5:])
    assert (np.diff(later["timestamp_ms"]) > 0).all()


def test_rounds_are_summed_whatever_kinds_they_had() -> None:
    rounds = [
        Cost(10, 1.0, 0.5, {"run": 0.3, "write": 0.1}, {"append": 10}),
        Cost(10, 2.0, 0.5, {"run": 0.1}, {"full": 1}),
    ]
    both = _sum(rounds)
    assert both == Cost(20, 3.0, 1.0, {"run": 0.4, "write": 0.1}, {"append": 10, "full": 1})
    assert both.overhead_share == 1 - 0.4 / 0.5
