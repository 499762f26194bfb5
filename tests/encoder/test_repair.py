"""States that can be read and are wrong, made anew."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from encoder.engine import Update
from encoder.repair import repair
from encoder.store_memory import MemoryStateStore
from schemas.sequence import NO_RECORDS, Records
from schemas.state import Fence, State
from tests.encoder.histories import events
from tests.encoder.models import Model
from tests.encoder.test_engine import TOPIC, USER, Worker, assert_right, load


def update(records: Records, offset: int) -> Update:
    return Update(USER, records, Fence(TOPIC, 0, offset), 777)


def another_users_slots(model: Model, store: MemoryStateStore) -> None:
    """Valid in every checksum, under this user's key and fence."""
    Worker(model, store).do(events(range(5), seed=9), 4, user=b"other")
    store.values[USER] = store.values[b"other"]


def a_fence_ahead_of_the_changelog(model: Model, store: MemoryStateStore) -> None:
    Worker(model, store).do(events(range(5), seed=9), 99)


def cut_short(model: Model, store: MemoryStateStore) -> None:
    store.values[USER] = store.values[USER][:-9]


def gone(model: Model, store: MemoryStateStore) -> None:
    del store.values[USER]


@pytest.mark.parametrize("damage", [another_users_slots, a_fence_ahead_of_the_changelog, cut_short, gone])
def test_a_wrong_state_is_made_anew(model: Model, damage: Callable[[Model, MemoryStateStore], None]) -> None:
    store = MemoryStateStore(model.layout)
    worker, records = Worker(model, store), events(range(6))
    worker.do(records, 4)
    damage(model, store)
    done = repair(model.refresher(), store, [(update(records, 4), store.load([USER])[0])])
    assert (done.done, done.overtaken) == ([USER], [])
    assert_right(model, store, records, 4)
    assert load(store).header.arrived_ms == 777
    # The encoder that thought that it knew the state notices, and goes on from the repaired one.
    worker.do(events(range(7)), 5)
    assert_right(model, store, events(range(7)), 5)


def test_a_state_of_a_deleted_user_goes(model: Model) -> None:
    store = MemoryStateStore(model.layout)
    Worker(model, store).do(events(range(6)), 4)
    assert repair(model.refresher(), store, [(update(NO_RECORDS, 5), store.load([USER])[0])]).done == [USER]
    assert not isinstance(store.load([USER])[0], State)


def test_what_an_encoder_writes_meanwhile_stays(model: Model) -> None:
    """After the repair has read the state; the changelog that it read then may or may not hold the record."""
    store = MemoryStateStore(model.layout)
    worker = Worker(model, store)
    worker.do(events(range(6)), 4)
    before, newest = store.load([USER])[0], events(range(8))
    worker.do(newest, 6)
    for known in (update(events(range(6)), 4), update(newest, 6)):
        assert repair(model.refresher(), store, [(known, before)]).overtaken == [USER]
        assert_right(model, store, newest, 6)
        assert load(store).header.fence.offset == 6
