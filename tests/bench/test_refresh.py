"""The next sequences that the refresh benchmark gives its users, the mix of a log, and how rounds are added up."""

from __future__ import annotations

import numpy as np
import pytest

from bench.encoders import Cost, total
from bench.events import random_records
from bench.log_mix import log_mix
from bench.refresh import _next, preset_figures
from schemas.bundle import PRESETS
from schemas.log import EventLog
from schemas.vocabulary import Vocabulary

SHAPE = PRESETS["nano"]
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
    both = total(rounds)
    assert both == Cost(20, 3.0, 1.0, {"run": 0.4, "write": 0.1}, {"append": 10, "full": 1})
    assert both.overhead_share == 1 - 0.4 / 0.5


def _log(*counts: int) -> EventLog:
    """Users `u0`, `u1`, ... with so many events each, all mixed."""
    records = random_records(sum(counts), 1000, 1, RNG)
    who = RNG.permutation(np.repeat(np.arange(len(counts), dtype=np.int32), counts))
    return EventLog([f"u{i}" for i in range(len(counts))], who, records, Vocabulary())


def test_of_a_whole_log_every_event_is_in_the_mix_on_top_of_its_past() -> None:
    log = _log(1, 5, 300)
    mix = log_mix(log, 1000, SHAPE, np.random.default_rng(1))
    assert not mix.anchored
    assert len(mix.events) == 306
    assert [len(records) for user, records in mix.events if user == b"log-u1"] == [1, 2, 3, 4, 5]
    history = log.records[log.user_index == 2]
    np.testing.assert_array_equal([r for user, r in mix.events if user == b"log-u2"][-1], history[-256:])
    assert {user for user, _ in mix.events[:3]} == {b"log-u0", b"log-u1", b"log-u2"}, "users take turns"


def test_a_share_is_a_stretch_of_each_history_in_order() -> None:
    log = _log(*[200] * 50)
    mix = log_mix(log, 500, SHAPE, np.random.default_rng(2))
    past = dict(mix.anchored)
    assert 400 <= len(mix.events) <= 600
    for user, records in mix.events:
        before = past.get(user, records[:0])
        np.testing.assert_array_equal(records[:-1], before[-255:])
        past[user] = records
    assert len({len(records) // 50 for records in dict(mix.anchored).values()}) == 4, "met at any moment of their lives"


def test_of_a_large_log_one_event_is_the_least() -> None:
    mix = log_mix(_log(*[10] * 300), 0, SHAPE, np.random.default_rng(0))
    assert len(mix.events) == 1


@pytest.mark.parametrize("past", [256, 257, 300, 321, 322, 700])
def test_a_long_past_has_the_window_of_an_encoder_that_was_there_all_the_time(past: int) -> None:
    log, rng = _log(past + 1), np.random.default_rng(3)
    # One event of the only user, until it is the last one.
    mix = next(m for m in iter(lambda: log_mix(log, 1, SHAPE, rng), None) if m.events[0][1][-1] == log.records[-1])
    grown_by = past - 1 - int(np.flatnonzero(log.records == mix.anchored[0][1][-1])[0])
    assert bool(mix.grown) == (grown_by > 0)
    window = 0
    for _ in range(past):
        window = window + 1 if window < SHAPE.context else SHAPE.keep
    assert window == (SHAPE.keep + grown_by if past > SHAPE.context else past)


def test_figures_compare_rounds_and_leave_out_what_was_not_measured() -> None:
    rounds = {
        "steady": Cost(100, 1.0, 0.02, {}, {}),
        "steady, states from Redis": Cost(100, 1.0, 0.04, {}, {}),
        "full": Cost(25, 1.0, 0.1, {}, {}),
    }
    assert preset_figures("nano", rounds) == {
        "refresh_vs_full_nano": pytest.approx(20),
        "refresh_vs_full_log_nano": None,
        "cpu_us_hot_nano": pytest.approx(200),
        "cpu_us_cold_nano": pytest.approx(400),
        "cpu_us_full_nano": pytest.approx(4000),
    }
    rounds |= {"log": Cost(10, 1.0, 0.01, {}, {}), "log, full": Cost(5, 1.0, 0.05, {}, {})}
    assert preset_figures("nano", rounds)["refresh_vs_full_log_nano"] == pytest.approx(10)
