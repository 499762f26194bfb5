"""The short forms of `slipstream bench chaos`: the same code, fewer events and faults.

Run: pytest tests/integration/test_chaos.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from bench.chaos.played import ChaosConfig
from bench.chaos.run import run_chaos
from bench.chaos.schedule import REDIS, Faults

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


def test_everything_happens_to_redis_and_every_state_is_right(tmp_path: Path) -> None:
    faults = Faults(
        kills=3,
        zombies=1,
        directed=0,
        scalings=0,
        broker_kills=0,
        broker_freezes=0,
        full_disks=0,
        refusals=0,
        redis=1,
    )
    config = ChaosConfig(15_000, flow_s=30, seed=1, faults=faults, states=True)
    outcome = run_chaos(config, tmp_path, Console(stderr=True))
    assert outcome.problems == [], outcome.describe()
    figures, details = outcome.result.figures, outcome.result.details
    assert (figures["redis_faults"], figures["kills"], figures["zombies"]) == (len(REDIS), 3, 1)
    assert (figures["states"], figures["states_differing"], figures["sequences_differing"]) == (600, 0, 0)
    assert details["states_damaged"]
    assert details["states_evicted"]
    assert details["losses_seen_by_encoders"]
