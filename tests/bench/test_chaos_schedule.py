"""The schedule of a chaos run: what was asked for, in time, the same for the same seed."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from bench.chaos.schedule import ALONE, REDIS, REDIS_TIMEOUT_S, SESSION_TIMEOUT_S, STAGES, Faults, Kind, plan_faults

FAULTS = Faults(kills=21, zombies=3, directed=2, scalings=2, broker_kills=1, broker_freezes=1, full_disks=1, refusals=3)


def test_everything_that_was_asked_for_happens_while_events_flow() -> None:
    schedule = plan_faults(FAULTS, 150, seed=1)
    assert Counter(fault.kind for fault in schedule) == {
        Kind.KILL: 21,
        Kind.PAUSE: 3,
        Kind.ZOMBIE: 2,
        Kind.SCALE: 2,
        Kind.BROKER_KILL: 1,
        Kind.BROKER_FREEZE: 1,
        Kind.FULL_DISK: 1,
        Kind.REFUSED: 3,
    }
    assert all(0 < fault.at_s < 150 for fault in schedule)
    assert [fault.at_s for fault in schedule] == sorted(fault.at_s for fault in schedule)


def test_a_seed_is_a_schedule() -> None:
    assert plan_faults(FAULTS, 150, seed=1) == plan_faults(FAULTS, 150, seed=1)
    assert plan_faults(FAULTS, 150, seed=1) != plan_faults(FAULTS, 150, seed=2)


@pytest.mark.parametrize("seed", range(5))
def test_both_stages_are_hit(seed: int) -> None:
    schedule = plan_faults(FAULTS, 150, seed)
    kills = Counter(fault.stage for fault in schedule if fault.kind is Kind.KILL)
    assert sorted(kills.values()) == [10, 11]
    assert {fault.stage for fault in schedule if fault.kind is Kind.REFUSED} == {"ingest", "sequence"}
    assert {fault.stage for fault in schedule if fault.kind is Kind.ZOMBIE} == {"sequence"}


@pytest.mark.parametrize("seed", range(5))
def test_zombies_sleep_past_their_session_and_what_needs_the_broker_comes_one_by_one(seed: int) -> None:
    schedule = plan_faults(FAULTS, 300, seed)
    assert all(fault.seconds > SESSION_TIMEOUT_S for fault in schedule if fault.kind is Kind.PAUSE)
    alone = [fault for fault in schedule if fault.kind in ALONE]
    assert all(b.at_s > a.at_s + 10 for a, b in pairwise(alone))


@pytest.mark.parametrize("seed", range(5))
def test_with_states_every_stage_is_hit_and_everything_happens_to_redis(seed: int) -> None:
    schedule = plan_faults(Faults(kills=21, redis=2), 150, seed, STAGES)
    kills = Counter(fault.stage for fault in schedule if fault.kind is Kind.KILL)
    assert kills == dict.fromkeys(STAGES, 7)
    on_redis = [fault for fault in schedule if fault.kind in REDIS]
    assert Counter(fault.kind for fault in on_redis) == dict.fromkeys(REDIS, 2)
    assert all(b.at_s > a.at_s + 3 for a, b in pairwise(on_redis))
    assert all(fault.at_s < 150 and not fault.stage for fault in on_redis)
    frozen = [fault for fault in on_redis if fault.kind is Kind.REDIS_FREEZE]
    assert all(fault.seconds > REDIS_TIMEOUT_S for fault in frozen), "encoders must give up waiting for answers"


def test_nothing_asked_for_is_an_empty_schedule() -> None:
    assert plan_faults(Faults(0, 0, 0, 0, 0, 0, 0, 0), 30, seed=1) == []
