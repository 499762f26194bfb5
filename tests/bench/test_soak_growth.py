"""Growth is seen through noise, restarts and odd moments, and is not seen where there is none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bench.soak.growth import Look, growth, judged, slope_per_h, theil_sen

WARM_UP_S = 600.0


def looks(
    rss_mb: Callable[[float], float], fds: Callable[[float], int] = lambda s: 20, to_s: float = 1800
) -> list[Look]:
    """Every 5 s, with noise of a megabyte."""
    rng = np.random.default_rng(0)
    at_s = np.arange(0, to_s + 1, 5.0).tolist()
    return [Look(s + 1e5, rss_mb(s) + rng.normal(0, 1), fds(s), 7, 4, 2) for s in at_s]


def test_a_line_through_points_with_outliers() -> None:
    x = np.arange(30.0)
    y = 2 * x + 5
    assert theil_sen(x, y) == (2, 2, 2)
    y[[3, 17, 25]] = 1e6
    slope = theil_sen(x, y)
    assert slope.per_h == pytest.approx(2, rel=0.1)
    assert slope.low <= 2 <= slope.high


def test_the_interval_is_wide_where_nothing_is_known() -> None:
    rng = np.random.default_rng(1)
    noise = [theil_sen(np.arange(20.0), rng.normal(size=20)) for _ in range(200)]
    assert np.mean([low <= 0 <= high for _, low, high in noise]) == pytest.approx(0.95, abs=0.04)


def test_a_leak_is_seen_and_what_fills_up_in_the_warm_up_is_none() -> None:
    leak = growth(looks(lambda s: 100 + 12 * s / 3600), WARM_UP_S)
    assert leak is not None
    assert leak.rss_mb_per_h.low > 0
    assert leak.rss_mb_per_h.per_h == pytest.approx(12, rel=0.2)
    full = growth(looks(lambda s: 100 + 80 * min(1, s / 500)), WARM_UP_S)
    assert full is not None
    assert full.rss_mb_per_h.low <= 0 <= full.rss_mb_per_h.high
    assert (full.minutes, full.fds, full.threads, full.connections) == (20, 0, 0, 0)
    assert full.rss_mb == pytest.approx(180, abs=1)


def test_a_fault_that_is_over_is_no_growth() -> None:
    of_fault = growth(
        looks(lambda s: 300 if 1700 < s < 1790 else 100, lambda s: 90 if 1000 < s < 1100 else 20), WARM_UP_S
    )
    assert of_fault is not None
    assert abs(of_fault.rss_mb_per_h.per_h) < 5
    assert of_fault.fds == 0


def test_descriptors_that_are_never_closed() -> None:
    leak = growth(looks(lambda s: 100, lambda s: 20 + int(s) // 60), WARM_UP_S)
    assert leak is not None
    assert leak.fds == 15  # between the middles of the first and the last of four times five minutes


def test_a_stage_is_judged_by_its_oldest_process_and_nobody_by_a_short_life() -> None:
    short = looks(lambda s: 100 + s, to_s=800)
    assert judged({"sequence-1.04": short, "nobody": []}, WARM_UP_S) == {}
    younger, oldest = looks(lambda s: 100 + s, to_s=1700), looks(lambda s: 100)
    found = judged({"encode-1.01": younger, "encode-0.01": oldest, "ranker": oldest, "encode-1.02": short}, WARM_UP_S)
    assert {stage: process for stage, (process, _) in found.items()} == {"encode": "encode-0.01", "ranker": "ranker"}
    assert slope_per_h(np.arange(3.0), np.arange(3.0)) is None
