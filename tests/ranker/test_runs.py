"""Grouping users into runs: each candidate is crossed once, and padding stays worth it."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from ranker.runs import MAX_RUN_CANDIDATES, RUN_CANDIDATES, runs

users_st = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 256)), max_size=40)


@given(users_st)
def test_every_candidate_is_in_one_run_with_its_own_user(users: list[tuple[int, int]]) -> None:
    counts, lengths = [count for count, _ in users], [length for _, length in users]
    starts = [0, *itertools.accumulate(counts)]
    seen: list[int] = []
    for run in runs(counts, lengths):
        assert run, "no run is empty"
        assert len(run) * max(line.candidates for line in run) <= MAX_RUN_CANDIDATES
        for line in run:
            assert line.length == lengths[line.user]
            assert starts[line.user] <= line.start < line.stop <= starts[line.user + 1]
            seen += range(line.start, line.stop)
    assert sorted(seen) == list(range(sum(counts)))


def test_equal_users_share_a_run() -> None:
    assert [len(run) for run in runs([128] * 8, [256] * 8)] == [8]


def test_little_padding_is_cheaper_than_another_run() -> None:
    assert len(list(runs([20, 21, 22, 23], [100] * 4))) == 1


def test_one_large_request_does_not_pad_the_small_ones() -> None:
    shapes = [(len(run), max(line.candidates for line in run)) for run in runs([1000] + [10] * 20, [256] * 21)]
    assert shapes == [(20, 10), (1, 1000)]


def test_padding_is_bounded() -> None:
    counts = list(range(1, 400, 7))
    made = list(runs(counts, [64] * len(counts)))
    padded = sum(len(run) * max(line.candidates for line in run) for run in made)
    assert padded <= sum(counts) + RUN_CANDIDATES * len(counts)
    assert len(made) < len(counts)


def test_more_candidates_than_a_run_holds_are_cut() -> None:
    made = list(runs([MAX_RUN_CANDIDATES * 2 + 5], [3]))
    assert sorted(line.candidates for run in made for line in run) == [5, MAX_RUN_CANDIDATES, MAX_RUN_CANDIDATES]
