"""The short form of `slipstream bench chaos`: the same code, fewer events and faults.

Run: pytest tests/integration/test_chaos.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from bench.chaos.played import ChaosConfig
from bench.chaos.run import run_chaos
from bench.chaos.schedule import Faults

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


def test_everything_dies_and_nothing_is_lost(tmp_path: Path) -> None:
    faults = Faults(
        kills=5, zombies=0, directed=1, scalings=1, broker_kills=1, broker_freezes=0, full_disks=0, refusals=1
    )
    outcome = run_chaos(ChaosConfig(60_000, flow_s=30, seed=1, faults=faults), tmp_path, Console(stderr=True))
    assert outcome.problems == [], outcome.describe()
    figures = outcome.result.figures
    assert figures["events"] is not None
    assert figures["events"] >= 60_000
    done = {name: figures[name] for name in ("kills", "broker_kills", "refused_produces", "zombies")}
    assert done == {"kills": 5, "broker_kills": 1, "refused_produces": 1, "zombies": 1}
    assert figures["fenced"] is not None
    assert figures["fenced"] >= 1
    assert (figures["sequences"], figures["sequences_differing"], figures["events_lost"]) == (2400, 0, 0)
    assert figures["dead_letters"] is not None
    assert figures["dead_letters"] >= 600
