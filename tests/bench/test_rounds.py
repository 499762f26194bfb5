from __future__ import annotations

import numpy as np

from bench.rounds import in_turns, percentiles, way


def test_every_way_is_measured_for_so_long_and_in_milliseconds() -> None:
    asked: list[str] = []

    def taking(name: str, seconds: float) -> object:
        def times(calls: int) -> list[float]:
            asked.append(name)
            return [seconds] * calls

        return times

    taken = in_turns({"quick": taking("quick", 0.001), "slow": taking("slow", 0.5)}, 1.0)  # type: ignore[dict-item]
    assert set(taken["quick"]) == {1.0}
    assert set(taken["slow"]) == {500.0}
    assert min(ms.sum() for ms in taken.values()) >= 1000
    assert asked[2:6] == ["quick", "slow", "quick", "slow"], "in turns, after a first look at each"


def test_a_way_calls_as_often_as_it_is_told() -> None:
    called: list[int] = []
    assert len(way(lambda: called.append(1))(7)) == len(called) == 7


def test_percentiles() -> None:
    assert percentiles(np.arange(1.0, 102.0)) == {"p50": 51.0, "p99": 100.0, "calls": 101}
