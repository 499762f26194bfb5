"""The engine on real graphs: what it does when the store holds something else than it thought."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from encoder.engine import Done, Engine, Update
from encoder.hot import HotStates
from encoder.metrics import EncodeMetrics
from encoder.oracle import Claim, check_states
from encoder.plan import PlanKind
from encoder.store import Deleted, Loaded, Outcome, Write
from encoder.store_memory import MemoryStateStore
from schemas.errors import FencedError, UnavailableError
from schemas.sequence import NO_RECORDS, Records
from schemas.state import Fence, State
from tests.encoder.histories import events
from tests.encoder.models import Model

TOPIC = b"t" * 16
USER = b"u-1"


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def __call__(self) -> int:
        self.now_ms += 1
        return self.now_ms


class Worker:
    """An engine with its own hot states, on a store that it may share."""

    def __init__(
        self,
        model: Model,
        store: MemoryStateStore,
        hot_bytes: int = 1 << 20,
        recheck_every: int = 32,
        max_age_ms: int = 0,
    ) -> None:
        self._registry = CollectorRegistry()
        self.hot = HotStates(model.layout, hot_bytes, recheck_every)
        self.clock = Clock()
        self.engine = Engine(
            model.refresher(),
            store,
            self.hot,
            EncodeMetrics(self._registry),
            clock_ms=self.clock,
            max_age_ms=max_age_ms,
        )

    def count(self, what: str) -> float:
        return self._registry.get_sample_value(f"slipstream_encode_{what}_total") or 0.0

    def do(self, records: Records, offset: int, user: bytes = USER, topic: bytes = TOPIC) -> Done:
        return self.engine.refresh([Update(user, records, Fence(topic, 0, offset), 500 + offset)])[0]


@pytest.fixture
def store(model: Model) -> MemoryStateStore:
    return MemoryStateStore(model.layout)


@pytest.fixture
def worker(model: Model, store: MemoryStateStore) -> Worker:
    return Worker(model, store)


def load(store: MemoryStateStore, user: bytes = USER) -> State:
    state = store.load([user])[0]
    assert isinstance(state, State), state
    return state


def assert_right(model: Model, store: MemoryStateStore, records: Records, offset: int, user: bytes = USER) -> None:
    stored = store.load([user])[0]
    claim = Claim(user, records, stored, Fence(TOPIC, 0, offset))
    assert check_states(model.runtime, model.bundle.features, model.layout, [claim]) == []
    assert stored is None or isinstance(stored, State | Deleted)
    assert stored is None or stored.header.fence.offset <= offset


def test_a_life(model: Model, store: MemoryStateStore, worker: Worker) -> None:
    steps: list[tuple[Records, PlanKind, int]] = [
        (events(range(3)), PlanKind.FULL, 3),
        (events(range(5)), PlanKind.APPEND, 2),
        (events([0, 1, 2, 3, 4, 9]), PlanKind.APPEND, 1),
        (events([0, 1, 2, 3, 4, 8, 9]), PlanKind.SUFFIX, 2),
        (NO_RECORDS, PlanKind.DELETE, 0),
        (events([20]), PlanKind.FULL, 1),
    ]
    for offset, (records, kind, encoded) in enumerate(steps):
        done = worker.do(records, offset)
        assert (done.kind, done.events) == (kind, encoded)
        assert done.written_ms == worker.clock.now_ms
        assert_right(model, store, records, offset)
    header = load(store).header
    assert (header.arrived_ms, header.newest_event_ms, header.fence.offset) == (505, 20, 5)
    assert done.written_ms > header.encoded_ms > 1_000_000


def test_hot_states_and_stored_ones_give_the_same_bytes(model: Model) -> None:
    stores = [MemoryStateStore(model.layout), MemoryStateStore(model.layout)]
    workers = [Worker(model, stores[0]), Worker(model, stores[1], hot_bytes=0)]
    for stop in range(1, 60):
        records = events(range(max(0, stop - 24), stop))
        for each in workers:
            each.do(records, stop)
        hot, cold = (load(each) for each in stores)
        assert hot.slots.tobytes() == cold.slots.tobytes()
        assert hot.header.embedding.tobytes() == cold.header.embedding.tobytes()
    assert len(workers[0].hot) == 1
    assert len(workers[1].hot) == 0


def test_the_same_record_again_writes_nothing(model: Model, store: MemoryStateStore, worker: Worker) -> None:
    worker.do(events(range(3)), 7)
    before = store.values[USER]
    for each in (worker, Worker(model, store)):
        assert each.do(events(range(3)), 7) == Done(PlanKind.HIT, 0, 0)
    assert store.values[USER] == before
    worker.do(NO_RECORDS, 8)
    before = store.values[USER]
    assert worker.do(NO_RECORDS, 8).written_ms == 0
    assert store.values[USER] == before


def test_a_newer_record_without_news_moves_the_fence_on(model: Model, store: MemoryStateStore, worker: Worker) -> None:
    worker.do(events(range(3)), 7)
    slots = load(store).slots.tobytes()
    done = worker.do(events(range(3)), 9)
    assert (done.kind, done.events) == (PlanKind.HIT, 0)
    assert done.written_ms > 0
    header = load(store).header
    assert (header.fence.offset, header.arrived_ms) == (9, 509)
    assert load(store).slots.tobytes() == slots
    # So a slower worker with the record in between is kept out.
    assert Worker(model, store).do(events([0, 1, 5]), 8) == Done(None, 0, 0)
    assert_right(model, store, events(range(3)), 9)


def test_an_older_record_is_superseded(model: Model, store: MemoryStateStore, worker: Worker) -> None:
    worker.do(events(range(5)), 7)
    for each in (worker, Worker(model, store)):
        assert each.do(events(range(4)), 6) == Done(None, 0, 0)
    assert_right(model, store, events(range(5)), 7)


def test_a_topic_made_anew_begins_at_low_offsets(model: Model, store: MemoryStateStore, worker: Worker) -> None:
    worker.do(events(range(5)), 700)
    assert worker.do(events(range(6)), 0, topic=b"n" * 16).kind is PlanKind.APPEND
    assert worker.do(events(range(6)), 1, topic=b"n" * 16).written_ms > 0
    assert load(store).header.fence == Fence(b"n" * 16, 0, 1)


def test_two_workers_with_hot_states_take_turns(model: Model, store: MemoryStateStore) -> None:
    workers = [Worker(model, store), Worker(model, store)]
    for offset in range(40):
        records = events(range(max(0, offset - 20), offset + 1))
        workers[offset % 3 % 2].do(records, offset)
        assert_right(model, store, records, offset)
    assert sum(each.count("conflicts") for each in workers) > 0


def test_a_store_that_lost_everything_is_filled_again(model: Model, store: MemoryStateStore, worker: Worker) -> None:
    worker.do(events(range(5)), 1)
    store.values.clear()
    assert worker.do(events(range(6)), 2).kind is PlanKind.FULL
    assert_right(model, store, events(range(6)), 2)


def test_a_store_that_lost_its_last_writes(model: Model, store: MemoryStateStore, worker: Worker) -> None:
    """A fail-over: an older state is back, and the hot one is ahead of it."""
    worker.do(events(range(5)), 1)
    older = store.values[USER]
    worker.do(events(range(8)), 2)
    store.values[USER] = older
    assert worker.do(events(range(9)), 3) == Done(PlanKind.APPEND, 4, worker.clock.now_ms)
    assert_right(model, store, events(range(9)), 3)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "magic": lambda v: b"X" + v[1:],
    "revision": lambda v: v[:16] + bytes(8) + v[24:],
    "an offset far ahead": lambda v: v[:40] + (1 << 60).to_bytes(8, "little") + v[48:],
    "cut in the slots": lambda v: v[:700],
    "cut in the header": lambda v: v[:50],
    "empty": lambda v: b"",
    "a slot": lambda v: v[:300] + b"\x55\xaa" + v[302:],
}


@pytest.mark.parametrize("is_hot", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_value_is_healed(model: Model, store: MemoryStateStore, damage: str, is_hot: bool) -> None:
    worker = Worker(model, store, recheck_every=1 if damage == "a slot" else 32)
    worker.do(events(range(6)), 1)
    store.values[USER] = DAMAGES[damage](store.values[USER])
    healer = worker if is_hot else Worker(model, store)
    for offset in (2, 3, 4):
        healer.do(events(range(5 + offset)), offset)
    assert_right(model, store, events(range(9)), 4)


def test_damaged_slots_under_a_hot_state_are_seen_in_time(model: Model, store: MemoryStateStore) -> None:
    worker = Worker(model, store, recheck_every=5)
    worker.do(events(range(6)), 0)
    value = store.values[USER]
    store.values[USER] = value[:300] + bytes([value[300] ^ 1]) + value[301:]
    for offset in range(1, 6):
        worker.do(events(range(6 + offset)), offset)
    assert store.load([USER])[0].__class__.__name__ == "Invalid", "nothing looked yet"
    worker.do(events(range(12)), 6)
    assert_right(model, store, events(range(12)), 6)
    assert worker.count("damaged_states") == 1


class Failing:
    """A store whose connection fails on some calls, before or after the work was done."""

    def __init__(self, store: MemoryStateStore, plan: list[str]) -> None:
        self.layout, self._store, self._plan = store.layout, store, plan

    def _next(self) -> str:
        return self._plan.pop(0) if self._plan else "ok"

    def load(self, users: Sequence[bytes]) -> list[Loaded]:
        if self._next() != "ok":
            raise UnavailableError("away")
        return self._store.load(users)

    def apply(self, writes: Sequence[Write]) -> list[Outcome]:
        match self._next():
            case "ok":
                return self._store.apply(writes)
            case "lost":  # done, but the answer never came
                self._store.apply(writes)
            case "half":
                self._store.apply(writes[: len(writes) // 2])
        raise UnavailableError("away")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["ok", "away", "lost", "half"]), max_size=12), st.booleans())
def test_trying_again_after_any_failure_ends_right(model: Model, plan: list[str], is_hot: bool) -> None:
    store = MemoryStateStore(model.layout)
    hot = HotStates(model.layout, (1 << 20) if is_hot else 0)
    engine = Engine(model.refresher(), Failing(store, list(plan)), hot)
    users = [b"a", b"b", b"c"]
    for offset in range(3):
        updates = [
            Update(u, events(range(2 + 2 * offset), seed=i), Fence(TOPIC, 0, offset), 1) for i, u in enumerate(users)
        ]
        while True:
            try:
                done = engine.refresh(updates)
                break
            except UnavailableError:
                continue
        # Each was written, and who is told so is told once: also if the answer to the write was lost.
        assert [row.events for row in done] == [2, 2, 2]
        assert all(row.written_ms for row in done)
        for i, user in enumerate(users):
            assert_right(model, store, events(range(2 + 2 * offset), seed=i), offset, user)


def test_a_worker_that_was_paused_for_too_long_does_not_write(model: Model, store: MemoryStateStore) -> None:
    """The marker of a delete is gone by then, and it would bring the user back."""
    worker = Worker(model, store, max_age_ms=10_000)
    update = Update(USER, events(range(3)), Fence(TOPIC, 0, 1), 1)
    with pytest.raises(FencedError, match="paused"):
        worker.engine.refresh([update], polled_ms=worker.clock.now_ms - 10_001)
    assert store.values == {}
    worker.engine.refresh([update], polled_ms=worker.clock.now_ms - 9_000)
    assert USER in store.values


class Contested(MemoryStateStore):
    """Another worker writes every user between our reading and our writing, for ever."""

    def apply(self, writes: Sequence[Write]) -> list[Outcome]:
        return [Outcome.CONFLICT] * len(writes)


def test_conflicts_without_end_stop_the_worker(model: Model) -> None:
    worker = Worker(model, Contested(model.layout))
    with pytest.raises(FencedError, match="another worker"):
        worker.do(events(range(3)), 1)


def test_a_batch_of_many_users(model: Model, store: MemoryStateStore, worker: Worker) -> None:
    rng = np.random.default_rng(0)
    histories = {b"u%d" % i: sorted(rng.choice(200, 40, replace=False).tolist()) for i in range(80)}
    for offset in range(5):
        wants = {u: events(h[: 4 + 9 * offset][-24:], seed=int(u[1:])) for u, h in histories.items()}
        done = worker.engine.refresh([Update(u, r, Fence(TOPIC, 0, offset), 1) for u, r in wants.items()])
        assert len(done) == len(wants)
        claims = [Claim(u, r, store.load([u])[0]) for u, r in wants.items()]
        assert check_states(model.runtime, model.bundle.features, model.layout, claims) == []
    assert worker.engine.refresh([]) == []


def test_who_is_not_live_pushes_nobody_out_of_the_hot_states(model: Model, store: MemoryStateStore) -> None:
    hot = HotStates(model.layout, 2 * model.layout.value_bytes(model.layout.capacity_for(3)))
    live = Engine(model.refresher(), store, hot)
    backfill = Engine(model.refresher(), store, hot, displaces=False)
    for offset, (engine, user) in enumerate([(backfill, b"a"), (live, b"b"), (backfill, b"c"), (live, b"d")]):
        engine.refresh([Update(user, events([1, 2, 3]), Fence(TOPIC, 0, offset), 0)])
        assert_right(model, store, events([1, 2, 3]), offset, user)
    assert [user for user in (b"a", b"b", b"c", b"d") if hot.get(user) is not None] == [b"b", b"d"]
