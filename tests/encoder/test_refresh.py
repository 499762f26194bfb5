"""Incremental refreshes against from-scratch ones, through the real graphs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from encoder.oracle import slot_steps
from encoder.past import Resident
from encoder.plan import Plan, PlanKind
from encoder.refresh import Refreshed, Refresher, Slots, Want, limits_of, runs
from encoder.store import fresh_revision
from schemas.sequence import NO_RECORDS, Records
from schemas.state import Fence, Header, Kind, State, StateLayout, decode_state, encode_state
from tests.encoder.histories import events
from tests.encoder.models import Model


def state_of(row: Refreshed, base: State | None, layout: StateLayout) -> State:
    """The state after a refresh, through its bytes: checksums must be right."""
    kept = row.slots[:0] if base is None else base.slots[: row.plan.kept]
    slots = np.concatenate([kept, row.slots])
    n = len(slots)
    header = Header(
        Kind.STATE, layout.model_id, fresh_revision(), Fence(bytes(16), 0, 0), n, layout.capacity_for(n),
        int(slots["event"]["timestamp_ms"][-1]), 0, 0, row.slots_crc, row.embedding,
    )  # fmt: skip
    state = decode_state(encode_state(header, slots, layout), layout)
    assert state is not None
    return state


def want(user: bytes, records: Records, state: State | None, layout: StateLayout) -> Want:
    return Want(user, records, None if state is None else Resident.of(state, layout))


def fresh(refresher: Refresher, wanted: Records) -> Refreshed:
    return refresher.make([Want(b"", wanted, None)], [Plan(PlanKind.FULL, 0, wanted)])[0]


def assert_same(row: Refreshed, base: State | None, wanted: Records, model: Model) -> State:
    state, oracle = state_of(row, base, model.layout), fresh(model.refresher(), wanted)
    assert state.events.tobytes() == wanted.tobytes()
    steps = slot_steps(state.slots, oracle.slots)
    embedding = np.abs(row.embedding.astype(np.float32) - oracle.embedding.astype(np.float32))
    difference = f"steps: max {steps.max()}, mean {steps.mean()}; embedding: max {embedding.max()}"
    assert steps.max() <= 1.5, difference
    assert (steps > 1e-3).mean() <= 0.02, difference
    assert embedding.max() < 1e-3, difference
    return state


@st.composite
def lives(draw: st.DrawFn) -> list[list[int]]:
    """One user's sequences, one after another, as sets of times: events come, come late, go."""
    times: set[int] = set()
    steps = []
    for _ in range(draw(st.integers(1, 5))):
        times |= draw(st.sets(st.integers(0, 60), max_size=12))
        times -= draw(st.sets(st.integers(0, 60), max_size=3))
        steps.append(sorted(times)[-24:])
    return steps


@settings(max_examples=40, deadline=None)
@given(st.lists(lives(), min_size=1, max_size=6))
def test_whatever_happens_a_state_is_what_its_events_encode_to(model: Model, users: list[list[list[int]]]) -> None:
    refresher = model.refresher()
    states: list[State | None] = [None] * len(users)
    for step in range(max(map(len, users))):
        # Users are refreshed together, each on its own way.
        now = [i for i, life in enumerate(users) if step < len(life)]
        wants = [want(b"%d" % i, events(users[i][step], seed=i), states[i], model.layout) for i in now]
        for i, asked, row in zip(now, wants, refresher.refresh(wants), strict=True):
            assert row.user == asked.user
            if row.plan.kind is PlanKind.DELETE:
                assert not len(asked.records)
                assert not len(row.slots)
                states[i] = None
            else:
                states[i] = assert_same(row, states[i], row.plan.wanted, model)


def test_many_users_of_all_kinds_at_once(model: Model) -> None:
    refresher, layout = model.refresher(), model.layout
    cold = [Want(b"%d" % i, events(range(1 + i % 23), seed=i), None) for i in range(150)]
    states = [state_of(row, None, layout) for row in refresher.refresh(cold)]
    wants = []
    for i, state in enumerate(states):
        held = state.events["timestamp_ms"].tolist()
        wants.append(
            want(
                b"%d" % i,
                [
                    events([*held, 100], seed=i),  # append
                    events([*held, 100, 101, 102][-24:], seed=i),
                    events([-1, *held], seed=i),  # late
                    events(held, seed=i),  # hit
                    events(range(200, 220), seed=i),  # all others
                    NO_RECORDS,
                ][i % 6],
                None if i % 7 == 0 else state,
                layout,
            )
        )
    rows = refresher.refresh(wants)
    assert [row.user for row in rows] == [asked.user for asked in wants]
    for asked, state, row in zip(wants, states, rows, strict=True):
        if row.plan.kind is not PlanKind.DELETE:
            assert_same(row, None if asked.base is None else state, row.plan.wanted, model)
    assert {row.plan.kind for row in rows} == set(PlanKind) - {PlanKind.SUFFIX}


def test_the_window_is_anchored_anew_when_it_is_full(model: Model) -> None:
    refresher, state, kinds = model.refresher(), None, []
    for stop in range(1, 40):
        row = refresher.refresh([want(b"u", events(range(max(0, stop - 24), stop)), state, model.layout)])[0]
        kinds.append(row.plan.kind)
        state = assert_same(row, state, row.plan.wanted, model)
    assert kinds.count(PlanKind.FULL) == 4  # the first, then at 25, 32 and 39
    assert kinds.count(PlanKind.APPEND) == 35


def test_a_hit_and_a_delete_run_no_graph(model: Model) -> None:
    refresher = model.refresher()
    state = state_of(refresher.refresh([Want(b"u", events(range(5)), None)])[0], None, model.layout)
    hit, delete = refresher.refresh(
        [want(b"u", state.events, state, model.layout), want(b"v", NO_RECORDS, state, model.layout)]
    )
    assert (hit.plan.kind, len(hit.slots), hit.slots_crc) == (PlanKind.HIT, 0, state.header.slots_crc)
    assert hit.embedding.tobytes() == state.header.embedding.tobytes()
    assert (delete.plan.kind, len(delete.slots), len(delete.embedding)) == (PlanKind.DELETE, 0, 0)
    assert refresher.refresh([]) == []


lengths = st.lists(st.tuples(st.integers(1, 256), st.integers(0, 255)), max_size=200)


@given(lengths, st.integers(1, 3000), st.integers(1, 20_000), st.integers(1, 100))
def test_runs_hold_everybody_once_and_keep_their_limits(
    users: list[tuple[int, int]], max_tokens: int, max_past: int, max_users: int
) -> None:
    new, kept = np.array(users, np.int64).reshape(-1, 2).T
    split = list(runs(new, kept, max_tokens, max_past, max_users))
    assert sorted(int(i) for run in split for i in run) == list(range(len(users)))
    for run in split:
        assert 1 <= len(run) <= max_users
        assert len(set((kept[run] > 0).tolist())) == 1, "encode and append are different graphs"
        assert len(run) == 1 or len(run) * new[run].max() <= max_tokens
        assert len(run) == 1 or len(run) * kept[run].max() <= max_past


@pytest.mark.parametrize(
    ("new", "kept", "expected"),
    [
        ([1] * 60, [200] * 60, 1),
        ([1] * 30 + [150] * 30, [0] * 60, 4),  # short ones apart from long ones; those are 13 a run
        ([1] * 10 + [2] * 2, [200] * 12, 1),  # ten more tokens are cheaper than a run
        ([1] * 60 + [2] * 2, [200] * 62, 2),  # sixty are not
        ([1] * 40, [1, 250] * 20, 2),
    ],
)
def test_runs_pad_little_and_are_few(new: list[int], kept: list[int], expected: int) -> None:
    assert len(list(runs(np.array(new), np.array(kept), 2048, 1 << 20))) == expected


@pytest.mark.parametrize(("provider", "expected"), [("cpu", [64, 36]), ("cuda", [100]), ("tensorrt", [100])])
def test_runs_are_as_large_as_the_provider_likes_them(model: Model, provider: str, expected: list[int]) -> None:
    class Counting:
        """The model's graphs, and how many users each run had."""

        def __init__(self) -> None:
            self.users: list[int] = []

        def encode(self, tokens: NDArray[np.float32], last: NDArray[np.int64]) -> Slots:
            self.users.append(len(tokens))
            return model.runtime.encode(tokens, last)

        append = model.runtime.append

    graphs = Counting()
    refresher = Refresher(graphs, model.bundle.features, model.layout, limits=limits_of(provider))
    refresher.refresh([Want(b"%d" % i, events(range(i, i + 1)), None) for i in range(100)])
    assert graphs.users == expected
