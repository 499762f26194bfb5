"""What the scale benchmark measures, and what it reads from its points."""

from __future__ import annotations

from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.plot import plot_scale
from bench.scale import ScaleBench, Setting, as_table, figures, fits, series, settings
from schemas.bundle import PRESETS
from schemas.state import StateLayout

CONFIG = ScaleBench(users=(1_000, 10_000, 100_000), partitions=(1, 4), workers=(1, 2))


def _points() -> list[dict[str, Any]]:
    """Encoding costs a microsecond more for each thousand users, and 10 for each partition and worker."""
    return [
        {
            **setting._asdict(),
            "redis_bytes_per_user": 3000.0,
            "cpu_us_per_event": {
                "ingest": 5.0,
                "sequence": 30.0,
                "encode": setting.users / 1000 + 10 * (setting.partitions + setting.workers),
                "redis": 20.0,
            },
            "ms": {"p50": 20.0, "p99": 90.0},
            "backlog": {
                "events_per_s": 3000.0 * setting.workers,
                "cpu_us_per_event": {"ingest": 4.0, "sequence": 20.0, "encode": 100.0, "redis": 25.0},
            }
            if setting.users >= CONFIG.backlog
            else None,
        }
        for setting in settings(CONFIG)
    ]


def test_each_series_varies_one_thing_and_they_share_a_point() -> None:
    assert settings(CONFIG) == [
        Setting(1_000, 4, 1),
        Setting(10_000, 4, 1),
        Setting(100_000, 4, 1),
        Setting(10_000, 1, 1),
        Setting(10_000, 4, 2),
    ]
    found = {what: [point[what] for point in series(_points(), what, CONFIG)] for what in Setting._fields}
    assert found == {"users": [1_000, 10_000, 100_000], "partitions": [1, 4], "workers": [1, 2]}


def test_cost_growth_is_between_the_fewest_and_the_most_users() -> None:
    said = figures(CONFIG, _points())
    assert said["users"] == 100_000
    assert said["cpu_us_per_event_fewest_users"] == 55 + 1 + 50
    assert said["cost_growth"] == (55 + 100 + 50) / (55 + 1 + 50)
    assert said["backlog_events_per_s_workers_2"] == 6000
    assert said["redis_us_per_event"] == 25


def test_what_does_not_fit_is_known_beforehand() -> None:
    nano, small = (StateLayout(PRESETS[preset], "") for preset in ("nano", "small"))
    assert fits(1_000_000, nano, 10 << 30)
    assert not fits(1_000_000, small, 8 << 30)
    assert not fits(10_000_000, nano, 24 << 30)


def test_the_table_and_the_picture_have_every_point(tmp_path: Path) -> None:
    points = _points()
    console = Console(width=100, record=True, file=StringIO())
    console.print(as_table(points))
    said = console.export_text()
    assert all(f"{point['users']:,}" in said for point in points)
    plot_scale({"config": asdict(CONFIG), "details": {"points": points}}, tmp_path / "scale.svg")
    assert (tmp_path / "scale.svg").read_bytes().rstrip().endswith(b"</svg>")
