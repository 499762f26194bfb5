"""Injection: what is added, what is held back, and that nothing is lost; malformed messages that ingest must refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigError, EventError
from schemas.event import Parser, ParserConfig
from stream.inject import InjectConfig, Kind, plan_messages
from stream.malformed import KINDS

ARRIVED_MS = 1_790_000_000_000
EVENT = {"user_id": "ünal", "item_id": 42, "action": "save", "surface": "home", "timestamp_ms": 893_286_638_001}
#: Reasons that malformed messages cannot have: they depend on the vocabulary and the policies of a deployment.
BY_POLICY = {"unknown_action", "unknown_surface", "too_old", "unknown_schema", "schema_mismatch"}


def test_nothing_injected_is_the_log_itself() -> None:
    plan = plan_messages(5, InjectConfig())
    assert plan.event.tolist() == plan.place.tolist() == [0, 1, 2, 3, 4]
    assert set(plan.kind.tolist()) == {Kind.EVENT}


def test_shares_are_met_exactly() -> None:
    plan = plan_messages(20_000, InjectConfig(duplicates=0.01, late=0.02, malformed=0.001))
    counts = dict(zip(*(column.tolist() for column in np.unique(plan.kind, return_counts=True)), strict=True))
    assert counts == {Kind.EVENT: 19_600, Kind.LATE: 400, Kind.DUPLICATE: 200, Kind.MALFORMED: 20}


def test_the_seed_decides() -> None:
    config = InjectConfig(0.1, 0.1, 0.1, seed=3)
    same, other = plan_messages(1000, config), plan_messages(1000, InjectConfig(0.1, 0.1, 0.1, seed=4))
    assert all((a == b).all() for a, b in zip(plan_messages(1000, config), same, strict=True))
    assert (same.event != other.event).any()


def test_duplicates_come_at_once_and_later() -> None:
    plan = plan_messages(10_000, InjectConfig(duplicates=0.1, max_delay_events=50))
    copies = np.flatnonzero(plan.kind == Kind.DUPLICATE)
    delays = plan.place[copies] - plan.event[copies]
    assert delays.min() == 0
    assert delays.max() <= 50
    assert 0.4 < (delays == 0).mean() < 0.6
    assert len(set(delays.tolist())) > 25


shares = st.floats(0, 1)


@given(st.integers(0, 60), shares, shares, shares, st.integers(1, 20), st.integers(0, 5))
def test_plan_properties(events: int, duplicates: float, late: float, malformed: float, delay: int, seed: int) -> None:
    plan = plan_messages(events, InjectConfig(duplicates, late, malformed, delay, seed))
    first_time = plan.kind <= Kind.LATE
    assert sorted(plan.event[first_time].tolist()) == list(range(events)), "each event goes out exactly once"
    assert (np.diff(plan.place) >= 0).all(), "in the order in which they are due"
    on_time, held_back = plan.kind == Kind.EVENT, plan.kind == Kind.LATE
    assert (plan.place[on_time] == plan.event[on_time]).all()
    delays = plan.place[held_back] - plan.event[held_back]
    at_the_end = plan.place[held_back] == events - 1
    assert ((delays >= 1) | at_the_end).all()
    assert (delays <= delay).all()
    sent_at = {event: at for at, event in enumerate(plan.event.tolist()) if first_time[at]}
    for at in np.flatnonzero(plan.kind == Kind.DUPLICATE).tolist():
        assert sent_at[int(plan.event[at])] < at, "a duplicate follows its original"
    spoiled = plan.kind == Kind.MALFORMED
    assert plan.variant[spoiled].tolist() == list(range(round(malformed * events)))
    assert (plan.variant[~spoiled] == -1).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unknown_names", ["reject", "other"])
def test_each_malformed_kind_is_refused(kind: str, unknown_names: str) -> None:
    parser = Parser(ParserConfig(unknown_names=unknown_names, max_future_ms=10**9))
    with pytest.raises(EventError):
        parser.parse(KINDS[kind](EVENT), ARRIVED_MS)


def test_malformed_kinds_have_every_reason() -> None:
    reasons = set()
    for make in KINDS.values():
        with pytest.raises(EventError) as raised:
            Parser(ParserConfig()).parse(make(EVENT), ARRIVED_MS)
        reasons.add(raised.value.reason)
    assert reasons == EventError.REASONS - BY_POLICY


def test_the_event_behind_them_is_good() -> None:
    Parser(ParserConfig()).parse(KINDS["two events"](EVENT).splitlines()[0], ARRIVED_MS)


@pytest.mark.parametrize(
    "bad", [{"duplicates": -0.1}, {"late": 1.1}, {"malformed": float("nan")}, {"max_delay_events": 0}]
)
def test_shares_that_are_none(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        InjectConfig(**bad)  # type: ignore[arg-type]
