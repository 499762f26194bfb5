"""The load of a soak: new users all the time, never more of them; and everything is done to everybody, in turn."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np

from bench.chaos.schedule import Kind
from bench.soak.config import FAULTS, SoakConfig
from bench.soak.load import plan_soak, soak_loads

CONFIG = SoakConfig(minutes=4, rate=40, users=50, fault_every_s=5)  # the warm-up takes twelve loads


def test_users_leave_for_good_and_others_take_their_places() -> None:
    loads = list(islice(soak_loads(CONFIG), 14))
    there: set[str] = set()
    gone: set[str] = set()
    for load in loads:
        assert len(load.log.users) == len(set(load.log.users)) == CONFIG.users
        there |= set(load.log.users)
        assert not gone & set(load.log.users)
        assert (np.diff(load.forget_at) >= 0).all()
        at_the_end = load.forget_at == len(load.log) - 1
        leave_ms = load.forget_ms[at_the_end].max()
        assert leave_ms >= load.log.records["timestamp_ms"].max(), "nothing of them is left"
        gone |= {load.log.users[i] for i in load.forget_user[at_the_end][-4:]}
    assert not set(loads[0].log.users) & set(loads[-1].log.users), "everybody was replaced in the warm-up"
    assert len(there) - len(gone) <= 60
    assert [load.events_per_s for load in loads].count(4 * CONFIG.rate) == 1, "a burst"


def test_everything_is_done_before_anything_is_done_again() -> None:
    schedule = plan_soak(CONFIG)
    assert schedule == plan_soak(CONFIG)
    assert schedule != plan_soak(replace(CONFIG, seed=2))
    assert len(schedule) == 47
    done = [(fault.kind, fault.stage) for fault in schedule]
    rounds = [done[i : i + len(FAULTS)] for i in range(0, len(done), len(FAULTS))]
    assert all(Counter(of_round) == dict.fromkeys(FAULTS, 1) for of_round in rounds[:-1])
    assert [fault.at_s for fault in schedule] == sorted(fault.at_s for fault in schedule)
    assert schedule[-1].at_s < CONFIG.flow_s - CONFIG.fault_every_s / 2


def test_a_short_run_has_one_fault() -> None:
    (only,) = plan_soak(SoakConfig(minutes=0.15, faults=((Kind.KILL, "encode"),)))
    assert (only.kind, only.stage) == (Kind.KILL, "encode")
    assert 4 < only.at_s < 8
