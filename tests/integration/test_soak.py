"""The short form of `slipstream bench soak`: the same code, seconds of it, one fault.

Run: pytest tests/integration/test_soak.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from bench.chaos.schedule import Kind
from bench.plot import plot_soak
from bench.soak.config import SoakConfig
from bench.soak.run import run_soak

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_a_worker_is_killed_and_everything_is_watched(tmp_path: Path) -> None:
    config = SoakConfig(minutes=0.3, rate=100, users=20, faults=((Kind.KILL, "encode"),), sample_every_s=0.2)
    outcome = run_soak(config, tmp_path, Console(stderr=True))
    assert outcome.problems == [], outcome.describe()
    figures, details = outcome.result.figures, outcome.result.details
    assert (figures["faults"], figures["sequences_differing"], figures["events_lost"]) == (1, 0, 0)
    assert figures["states_differing"] == 0
    counts = ("events", "fd_growth", "thread_growth", "connection_growth", "lag_end")
    assert {type(figures[name]) for name in counts} == {int}
    assert {type(figures[name]) for name in ("minutes", "rss_growth_mb_per_h", "freshness_ms_p99")} == {float}
    assert all(figures[f"rss_mb_{who}"] for who in ("ingest", "sequence", "encode", "ranker"))
    assert set(details["growth"]) >= {"ingest", "sequence", "encode", "ranker"}
    for name, (kafka, redis) in {"ingest": (1, 0), "encode": (1, 1), "ranker": (0, 1)}.items():
        of = details["series"]["processes"][name]
        assert max(of["kafka_connections"]) >= kafka
        assert max(of["redis_connections"]) >= redis
        assert max(of["rss_mb"]) > 10
        assert max(of["fds"]) > 3
    assert details["ranker"]["crossed"]
    assert details["exits"]["encode -9"] == 1
    plot_soak(outcome.result.as_json(), tmp_path / "soak.svg")
    assert (tmp_path / "soak.svg").read_text().endswith("</svg>\n")
