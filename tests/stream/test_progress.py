"""A worker that stands still is noticed. Run: pytest tests/stream/test_progress.py"""

from __future__ import annotations

import pytest

from schemas.errors import UnavailableError
from stream.progress import Progress

A, B = ("batches", 0), ("batches", 1)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(clock: Clock) -> Progress:
    return Progress(20, 60, clock)


def test_standing_still_with_work_to_do(clock: Clock, progress: Progress) -> None:
    asked = []
    for clock.now_s in (5, 24, 25, 30, 65):
        asked.append(progress.note({A: 3, B: 0}, {A: 60, B: 40}))
    assert asked == [False, False, True, False, False], "it is asked to read again once"
    clock.now_s = 66
    with pytest.raises(UnavailableError, match=r"no progress for 60 s.*batches 0: 4"):
        progress.note({A: 4, B: 0}, {A: 60, B: 40})


@pytest.mark.parametrize("moves", ["it commits", "nothing waits", "it gets a partition", "there was a reason"])
def test_what_counts_as_progress(clock: Clock, progress: Progress, moves: str) -> None:
    behind, committed = {A: 3}, {A: 100}
    for clock.now_s in range(0, 600, 15):
        match moves:
            case "it commits":
                committed[A] += 1
            case "nothing waits":
                behind = {A: 3 if clock.now_s % 30 else 0}
            case "it gets a partition":
                behind = {A: 3, ("batches", clock.now_s): 0}
            case _:
                progress.reset()
        assert not progress.note(behind, committed)


def test_one_partition_that_stands_still_is_enough(clock: Clock, progress: Progress) -> None:
    asked = []
    for clock.now_s in (5, 15, 25, 35):
        asked.append(progress.note({A: 3, B: 7}, {A: 60, B: int(clock.now_s)}))
    assert asked == [False, False, True, False]
    assert not progress.note({A: 3, B: 7}, {A: 61, B: 36}), "it goes on"
