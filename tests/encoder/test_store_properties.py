"""Two encoders on one user, in any order, with a reader in between. Run alone: pytest tests/encoder/test_store_properties.py

tests/encoder/test_store.py has single writes; here are whole refreshes: load, plan, run and write, each of which the other
encoder may come between, and each encoder may begin again from an older offset, as after a crash or a rebalance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from encoder.engine import Engine, Update
from encoder.hot import HotStates
from encoder.oracle import Claim, check_states
from encoder.store import Deleted, Invalid, Loaded, Outcome, StateStore, Write
from encoder.store_memory import MemoryStateStore
from encoder.store_redis import RedisStateStore
from schemas.names import Names
from schemas.sequence import NO_RECORDS, Records, sort_records
from tests.encoder.histories import events
from tests.encoder.models import Model
from tests.encoder.states import fence

USER = b"u-1"


class Interrupted:
    """A store in which something happens right before each write: what was loaded may be outdated by then."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self.layout = store.layout
        self.before_write: Callable[[], None] = lambda: None

    def load(self, users: Sequence[bytes]) -> list[Loaded]:
        return self._store.load(users)

    def apply(self, writes: Sequence[Write]) -> list[Outcome]:
        self.before_write()
        return self._store.apply(writes)


class Encoder:
    """With hot states of its own, and the offset of the record that it takes next."""

    def __init__(self, model: Model, store: StateStore) -> None:
        self._model = model
        self.store = Interrupted(store)
        self.next_offset = 0
        self.restart(0)

    def restart(self, offset: int) -> None:
        self.next_offset = min(offset, self.next_offset)
        hot = HotStates(self._model.layout, 1 << 20, recheck_every=4)
        self._engine = Engine(self._model.refresher(), self.store, hot)

    def work(self, changelog: list[Records], records: int) -> None:
        """Take so many records: of one user only the newest of them counts."""
        newest = min(self.next_offset + records, len(changelog)) - 1
        if newest < self.next_offset:
            return
        self._engine.refresh([Update(USER, changelog[newest], fence(newest), arrived_ms=1000 + newest)])
        self.next_offset = newest + 1


class TwoEncoders(RuleBasedStateMachine):
    """Subclasses give `model` and `new_store`."""

    model: Model
    new_store: Callable[[], StateStore]

    def __init__(self) -> None:
        super().__init__()
        self.store = type(self).new_store()
        self.encoders = [Encoder(self.model, self.store), Encoder(self.model, self.store)]
        self.changelog: list[Records] = []
        self.times: set[int] = set()
        self.seen = -1  # the newest record that a reader saw a state of

    @rule(new=st.sets(st.integers(0, 60), min_size=1, max_size=12))
    def events_come(self, new: set[int]) -> None:
        """Late ones too; the table keeps 30, of which a window holds 24."""
        self.times |= new
        self.times = set(sorted(self.times)[-30:])
        self.changelog.append(sort_records(events(sorted(self.times))))

    @rule()
    def the_user_is_forgotten(self) -> None:
        self.times = set()
        self.changelog.append(NO_RECORDS)

    @precondition(lambda self: self.changelog)
    @rule(who=st.integers(0, 1), records=st.integers(1, 4), data=st.data())
    def work(self, who: int, records: int, data: st.DataObject) -> None:
        one, other = self.encoders[who], self.encoders[1 - who]

        def other_comes_between() -> None:
            other.work(self.changelog, data.draw(st.integers(0, 3), label="records of the other one"))
            self.read()

        one.store.before_write = other_comes_between
        try:
            one.work(self.changelog, records)
        finally:
            one.store.before_write = lambda: None

    @rule(who=st.integers(0, 1), offset=st.integers(0, 8))
    def one_begins_again(self, who: int, offset: int) -> None:
        self.encoders[who].restart(offset)

    @rule(who=st.integers(0, 1), offset=st.integers(0, 8))
    def one_is_a_zombie(self, who: int, offset: int) -> None:
        """It goes on from an older record, and still has its hot states."""
        encoder = self.encoders[who]
        encoder.next_offset = min(offset, encoder.next_offset)

    @invariant()
    def read(self) -> None:
        (found,) = self.store.load([USER])
        assert not isinstance(found, Invalid), found
        if found is None:
            assert self.seen == -1, "a state was there"
            return
        offset = found.header.fence.offset
        assert offset >= self.seen, f"a state of record {offset}, after one of {self.seen}"
        self.seen = offset
        # Whole, unmixed, and of that very record: nobody is brought back, and nothing older is on top.
        if isinstance(found, Deleted):
            assert not len(self.changelog[offset])
            return
        claim = Claim(USER, self.changelog[offset], found)
        assert check_states(self.model.runtime, self.model.bundle.features, self.model.layout, [claim]) == []

    def teardown(self) -> None:
        """Both come to the end: the state is that of the newest record."""
        if not self.changelog:
            return
        for encoder in self.encoders:
            encoder.work(self.changelog, len(self.changelog))
        self.read()
        assert self.seen == len(self.changelog) - 1


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_any_interleaving_of_two_encoders(model: Model, redis_client: redis.Redis, prefix: str, kind: str) -> None:
    names = Names(prefix)

    def new_store() -> StateStore:
        redis_client.delete(names.state_key(model.layout.model_id, USER))
        return RedisStateStore(redis_client, names, model.layout) if kind == "redis" else MemoryStateStore(model.layout)

    machine = type("Machine", (TwoEncoders,), {"model": model, "new_store": staticmethod(new_store)})
    run_state_machine_as_test(machine, settings=settings(max_examples=40, stateful_step_count=20, deadline=None))
    redis_client.delete(names.state_key(model.layout.model_id, USER))


def test_the_oracle_of_these_tests_sees_a_mixture(model: Model) -> None:
    """Else they would prove nothing: newer slots on top of another history's."""
    store = MemoryStateStore(model.layout)
    engine = Engine(model.refresher(), store, HotStates(model.layout, 0))
    theirs, ours = events(range(10), seed=1), events(range(10))
    engine.refresh([Update(USER, theirs, fence(0), 0)])
    (other,) = store.load([USER])
    engine.refresh([Update(USER, ours, fence(1), 0)])
    (found,) = store.load([USER])
    assert found is not None
    assert other is not None
    assert not isinstance(found, Invalid | Deleted)
    assert not isinstance(other, Invalid | Deleted)
    mixed = found.slots.copy()
    mixed["kv"][:5] = other.slots["kv"][:5]
    claims = [Claim(USER, ours, found._replace(slots=np.asarray(mixed)))]
    assert len(check_states(model.runtime, model.bundle.features, model.layout, claims)) == 1
