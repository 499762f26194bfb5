"""Paces: when events are due, and how they are cut into chunks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigError
from stream.pace import AsFastAsPossible, FixedRate, ScaledTime, chunk_starts, due_s


def times(*timestamps_ms: int) -> np.ndarray:
    return np.array(timestamps_ms, np.int64)


def test_a_fixed_rate_ignores_timestamps() -> None:
    assert due_s(FixedRate(500), times(9, 5, 7)).tolist() == [0.0, 0.002, 0.004]


def test_scaled_time_follows_gaps_and_caps_them() -> None:
    log = times(1000, 3000, 3000, 4000, 900_000_000, 900_002_000)
    assert due_s(ScaledTime(speed=1, max_gap_s=1e9), log)[-1] == pytest.approx(900_001)
    assert due_s(ScaledTime(speed=10, max_gap_s=0.5), log).tolist() == pytest.approx([0, 0.2, 0.2, 0.3, 0.8, 1.0])


def test_an_old_event_neither_waits_nor_makes_the_next_one_wait() -> None:
    assert due_s(ScaledTime(1, 10), times(1000, 2000, 500, 2500)).tolist() == pytest.approx([0, 1, 1, 1.5])


def test_as_fast_as_possible_is_at_once() -> None:
    assert due_s(AsFastAsPossible(), times(1, 2, 3)).tolist() == [0, 0, 0]


def test_no_events() -> None:
    for pace in (FixedRate(1), ScaledTime(), AsFastAsPossible()):
        due = due_s(pace, times())
        assert due.tolist() == []
        assert chunk_starts(due, 0.004, 10).tolist() == [0]


def test_chunks_are_windows_and_large_ones_are_cut() -> None:
    due = np.array([0.0, 0.0039, 0.004, 0.005, 0.006, 0.0199, 1.0])
    assert chunk_starts(due, 0.004, 2).tolist() == [0, 2, 4, 5, 6, 7]
    assert chunk_starts(np.zeros(7), 0.004, 3).tolist() == [0, 3, 6, 7]


@given(st.lists(st.floats(0, 3, allow_nan=False), max_size=60), st.floats(0.001, 0.5), st.integers(1, 9))
def test_chunks_hold_all_in_order(gaps_s: list[float], chunk_s: float, max_events: int) -> None:
    due = np.cumsum(gaps_s)
    starts = chunk_starts(due, chunk_s, max_events)
    sizes = np.diff(starts)
    assert starts[0] == 0
    assert starts[-1] == len(due) == sizes.sum()
    assert (sizes > 0).all()
    assert (sizes <= max_events).all()
    for start, end in pairwise(starts.tolist()):
        assert due[end - 1] - due[start] <= chunk_s * (1 + 1e-9)


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_paces_that_never_end_or_never_start(value: float) -> None:
    for make in (FixedRate, ScaledTime, lambda gap_s: ScaledTime(1, gap_s)):
        with pytest.raises(ConfigError, match="above 0"):
            make(value)
