"""What the end-to-end benchmark makes of the rates that it sends and of the freshness that it finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.e2e import _burst_figures, _load_figures
from bench.events import Workload, raw_events
from bench.plot import plot_e2e
from bench.sending import steadily


def _step(rate: float, p99: float, reached: float | None = None) -> dict[str, Any]:
    return {"rate": rate, "events_per_s": reached or rate, "ms": {"p50": p99 / 3, "p99": p99}}


def _seconds(*p50: float) -> list[dict[str, float]]:
    return [{"s": float(second), "p50": ms, "p99": 2 * ms} for second, ms in enumerate(p50)]


def _burst(*after: float) -> dict[str, Any]:
    """Ten seconds before, two in the burst."""
    return {
        "rates": (10.0, 100.0, 10.0),
        "burst_s": [10.0, 12.0],
        "seconds": _seconds(*[20.0] * 10, 500.0, 900.0, *after),
    }


def test_a_steady_rate_is_due_evenly() -> None:
    np.testing.assert_allclose(steadily(4, 1.5), [0, 0.25, 0.5, 0.75, 1.0, 1.25])


def test_each_event_in_turn_is_of_the_next_user() -> None:
    keys, values, records, who = raw_events(Workload(5, 3, "in turn", seed=2), 1000)
    assert who.tolist() == [2, 0, 1, 2, 0]
    assert keys[1] == b"user-000000000"
    assert b'"user_id":"user-000000000"' in values[1]
    assert records["timestamp_ms"].tolist() == [1000, 1001, 1002, 1003, 1004]


def test_saturation_is_the_most_that_went_through_and_fresh_ends_at_the_first_step_that_is_not() -> None:
    steps = [_step(100, 40), _step(200, 140), _step(400, 160), _step(800, 120), _step(1600, 3000, 900)]
    assert _load_figures(steps) == {"saturation_events_per_s": 900, "events_per_s_within_150_ms": 200}
    assert _load_figures([_step(100, 151)])["events_per_s_within_150_ms"] is None


def test_normal_is_back_after_the_last_second_that_was_late() -> None:
    assert _burst_figures(_burst(300, 30, 60, 25, 20)) == {"burst_ms_p99": 1800, "burst_back_to_normal_s": 3.0}
    assert _burst_figures(_burst(30, 20))["burst_back_to_normal_s"] == 0.0


def test_a_burst_that_is_not_over_is_not_said_to_be() -> None:
    assert _burst_figures(_burst(300, 30, 200))["burst_back_to_normal_s"] is None
    assert _burst_figures(_burst())["burst_back_to_normal_s"] is None


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    plot_e2e({"details": {"load": [_step(100, 40), _step(200, 900)], "burst": _burst(300, 20)}}, tmp_path / "e2e.svg")
    assert (tmp_path / "e2e.svg").read_bytes().rstrip().endswith(b"</svg>")
