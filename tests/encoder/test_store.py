"""The rule by which states are replaced, against real Redis and in memory: the same tests for both."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from encoder.models_redis import publish_active
from encoder.store import Deleted, Invalid, Loaded, Outcome, StateStore, Write
from encoder.store_memory import MemoryStateStore
from encoder.store_redis import RedisStateStore, connect
from schemas.errors import ConfigError, UnavailableError
from schemas.names import Names
from schemas.sequence import RECORD, Records
from schemas.state import REVISION_AT, State
from tests.encoder.states import LAYOUT, delete, describe, fence, slots, write

OK, CONFLICT, SUPERSEDED = Outcome.OK, Outcome.CONFLICT, Outcome.SUPERSEDED
USER = "ü-1".encode()


class Values(Protocol):
    """A store's raw values."""

    def peek(self, user: bytes) -> bytes | None: ...
    def poke(self, user: bytes, value: bytes) -> None: ...
    def drop(self, user: bytes) -> None: ...


class MemoryValues:
    def __init__(self, store: MemoryStateStore) -> None:
        self._values = store.values

    def peek(self, user: bytes) -> bytes | None:
        return self._values.get(user)

    def poke(self, user: bytes, value: bytes) -> None:
        self._values[user] = value

    def drop(self, user: bytes) -> None:
        self._values.pop(user, None)


class RedisValues:
    def __init__(self, client: redis.Redis, names: Names) -> None:
        self._client, self._names = client, names

    def key(self, user: bytes) -> bytes:
        return self._names.state_key(LAYOUT.model_id, user)

    def peek(self, user: bytes) -> bytes | None:
        value: Any = self._client.get(self.key(user))
        return None if value is None else bytes(value)

    def poke(self, user: bytes, value: bytes) -> None:
        self._client.set(self.key(user), value)

    def drop(self, user: bytes) -> None:
        self._client.delete(self.key(user))


@pytest.fixture(params=["memory", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pair(kind: str, request: pytest.FixtureRequest, prefix: str) -> Iterator[tuple[StateStore, Values]]:
    if kind == "memory":
        memory = MemoryStateStore(LAYOUT)
        yield memory, MemoryValues(memory)
        return
    client, names = request.getfixturevalue("redis_client"), Names(prefix)
    yield RedisStateStore(client, names, LAYOUT), RedisValues(client, names)
    for key in client.scan_iter(f"{prefix}:*"):
        client.delete(key)


@pytest.fixture
def store(pair: tuple[StateStore, Values]) -> StateStore:
    return pair[0]


@pytest.fixture
def values(pair: tuple[StateStore, Values]) -> Values:
    return pair[1]


def events(start: int, stop: int) -> Records:
    records = np.zeros(stop - start, RECORD)
    records["timestamp_ms"] = np.arange(start, stop)
    return records


def load(store: StateStore, user: bytes = USER) -> Loaded:
    return store.load([user])[0]


def apply(store: StateStore, made: Write) -> Outcome:
    return store.apply([made])[0]


def stored(store: StateStore, length: int, offset: int = 10, capacity: int | None = None) -> State:
    """A state of so many slots, in the store."""
    made = write(USER, load(store), fence(offset), 0, slots(events(0, length)), capacity)
    assert apply(store, made) is OK
    state = load(store)
    assert isinstance(state, State)
    return state


def check(store: StateStore, made: Write, whole: np.ndarray) -> None:
    state = load(store, made.user)
    assert isinstance(state, State), state
    assert state.header[:-1] == made.header[:-1]
    assert state.slots.tobytes() == whole.tobytes()


def test_what_was_written_is_read(store: StateStore) -> None:
    assert load(store) is None
    new = slots(events(0, 20))
    made = write(USER, None, fence(7), 0, new)
    assert apply(store, made) is OK
    check(store, made, new)
    state = load(store)
    assert isinstance(state, State)
    assert state.header.embedding.tobytes() == made.header.embedding.tobytes()
    assert state.header.capacity == LAYOUT.capacity_for(20) == 24


@pytest.mark.parametrize(
    ("length", "kept", "new", "capacity"),
    [
        (20, 20, 1, 24),  # in place
        (20, 20, 4, 24),  # to the last place
        (20, 20, 0, 24),  # the header alone
        (20, 13, 2, 24),  # fewer than before, in place
        (20, 20, 5, 32),  # grows
        (20, 20, 40, 64),  # grows
        (20, 13, 30, 64),  # grows from a part
        (200, 3, 1, 16),  # shrinks
        (1, 1, 0, 16),
    ],
)
def test_slots_that_stay(store: StateStore, values: Values, length: int, kept: int, new: int, capacity: int) -> None:
    base = stored(store, length)
    behind = slots(events(1000, 1000 + new), seed=1)
    made = write(USER, base, fence(11), kept, behind, capacity)
    assert apply(store, made) is OK
    check(store, made, np.concatenate([base.slots[:kept], behind]))
    value = values.peek(USER)
    assert value is not None
    assert len(value) == LAYOUT.value_bytes(capacity)


def test_many_users_in_one_call_each_for_itself(store: StateStore) -> None:
    users = [b"u%d" % i for i in range(50)]
    first = [write(user, None, fence(i), 0, slots(events(0, i + 1), i)) for i, user in enumerate(users)]
    assert store.apply(first) == [OK] * 50
    again = [write(u, b if i % 2 else None, fence(99), 0, slots(events(0, 3)))
             for i, (u, b) in enumerate(zip(users, store.load(users), strict=True))]  # fmt: skip
    assert store.apply(again) == [CONFLICT, OK] * 25
    loaded = store.load([*users, b"nobody"])
    assert [len(s.slots) for s in loaded[:-1] if isinstance(s, State)] == [3 if i % 2 else i + 1 for i in range(50)]
    assert loaded[-1] is None
    assert store.load([]) == []
    assert store.apply([]) == []


def test_a_plan_from_another_revision_is_a_conflict(store: StateStore) -> None:
    base = stored(store, 5)
    winner = write(USER, base, fence(11), 5, slots(events(5, 6)))
    loser = write(USER, base, fence(12), 5, slots(events(6, 7)))
    assert store.apply([winner, loser]) == [OK, CONFLICT]
    check(store, winner, np.concatenate([base.slots, winner.slots]))
    assert apply(store, write(USER, None, fence(12), 0, slots(events(0, 1)))) is CONFLICT


def test_an_older_offset_is_superseded_whatever_it_was_planned_from(store: StateStore) -> None:
    base = stored(store, 5, offset=10)
    assert apply(store, write(USER, base, fence(9), 0, slots(events(0, 1)))) is SUPERSEDED
    assert apply(store, write(USER, None, fence(9), 0, slots(events(0, 1)))) is SUPERSEDED
    assert apply(store, delete(USER, base, fence(9))) is SUPERSEDED
    assert describe(load(store)) == describe(base)


def test_the_same_offset_may_be_written_again(store: StateStore) -> None:
    """After a crash between write and commit, and to repair."""
    base = stored(store, 5, offset=10)
    assert apply(store, write(USER, base, fence(10), 0, slots(events(0, 2)))) is OK


@pytest.mark.parametrize("other", [fence(1, topic_id=bytes(16)), fence(1, partition=4)])
def test_offsets_of_other_logs_do_not_compare(store: StateStore, other: object) -> None:
    base = stored(store, 5, offset=10)
    assert apply(store, write(USER, None, other, 0, slots(events(0, 2)))) is CONFLICT  # type: ignore[arg-type]
    assert apply(store, write(USER, base, other, 0, slots(events(0, 2)))) is OK  # type: ignore[arg-type]


@pytest.mark.parametrize("offset", [255, 256, 65_535, 65_536, (1 << 32) - 1, 1 << 32, 1 << 40, (1 << 53) - 1])
def test_offsets_compare_as_numbers(store: StateStore, offset: int) -> None:
    base = stored(store, 2, offset=offset)
    assert apply(store, write(USER, base, fence(offset - 1), 0, slots(events(0, 1)))) is SUPERSEDED
    assert apply(store, write(USER, base, fence(offset + 1), 0, slots(events(0, 1)))) is OK


def test_a_delete_cannot_be_undone_by_a_late_writer(store: StateStore) -> None:
    base = stored(store, 5, offset=10)
    made = delete(USER, base, fence(12))
    assert apply(store, made) is OK
    marker = load(store)
    assert isinstance(marker, Deleted)
    assert marker.header.fence == fence(12)
    late = write(USER, base, fence(11), 5, slots(events(5, 6)))
    assert apply(store, late) is SUPERSEDED
    assert apply(store, late._replace(base=None, kept=0)) is SUPERSEDED
    assert apply(store, write(USER, base, fence(13), 5, slots(events(5, 6)))) is CONFLICT
    assert apply(store, write(USER, marker, fence(13), 0, slots(events(5, 6)))) is OK


def test_a_delete_of_nobody_leaves_its_marker(store: StateStore) -> None:
    assert apply(store, delete(USER, None, fence(5))) is OK
    assert apply(store, write(USER, None, fence(4), 0, slots(events(0, 1)))) is SUPERSEDED


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda value: b"",
    "one byte": lambda value: b"S",
    "cut in the revision": lambda value: value[:19],
    "cut in the fence": lambda value: value[:30],
    "cut in the embedding": lambda value: value[:140],
    "cut in the slots": lambda value: value[: LAYOUT.value_bytes(4)],
    "other bytes": lambda value: b"hello " * 500,
    "magic": lambda value: b"X" + value[1:],
    "version": lambda value: value[:4] + b"\xff" + value[5:],
    "revision": lambda value: value[:16] + bytes(8) + value[24:],
    "an offset far ahead": lambda value: value[:40] + (1 << 60).to_bytes(8, "little") + value[48:],
    "embedding": lambda value: value[:130] + b"\x00\x3c" + value[132:],
    "a slot": lambda value: value[:-700] + b"\xaa\x55" + value[-698:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_value_is_seen_and_healed_once(store: StateStore, values: Values, damage: str) -> None:
    stored(store, 16, offset=10)
    value = values.peek(USER)
    assert value is not None
    values.poke(USER, DAMAGE[damage](value))
    found = load(store)
    assert isinstance(found, Invalid)
    assert found.reason
    healing = write(USER, found, fence(10), 0, slots(events(0, 3)))
    other = write(USER, found, fence(11), 0, slots(events(0, 4)))
    assert store.apply([healing, other]) == [OK, CONFLICT], "the second must not replace a healthy state blindly"
    check(store, healing, healing.slots)
    assert apply(store, write(USER, load(store), fence(11), 3, slots(events(3, 4)))) is OK


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_value_can_be_deleted(store: StateStore, values: Values, damage: str) -> None:
    stored(store, 16, offset=10)
    value = values.peek(USER)
    assert value is not None
    values.poke(USER, DAMAGE[damage](value))
    assert apply(store, delete(USER, load(store), fence(11))) is OK
    assert isinstance(load(store), Deleted)


def test_an_append_onto_a_value_cut_short_is_a_conflict(store: StateStore, values: Values) -> None:
    base = stored(store, 16)
    value = values.peek(USER)
    assert value is not None
    values.poke(USER, value[: LAYOUT.value_bytes(12)])
    assert apply(store, write(USER, base, fence(11), 16, slots(events(16, 17)))) is CONFLICT
    assert isinstance(load(store), Invalid)


def test_a_value_that_vanished_is_a_conflict_then_made_anew(store: StateStore, values: Values) -> None:
    base = stored(store, 5)
    values.drop(USER)
    assert apply(store, write(USER, base, fence(11), 5, slots(events(5, 6)))) is CONFLICT
    assert apply(store, write(USER, load(store), fence(11), 0, slots(events(0, 6)))) is OK


class TwoWriters(RuleBasedStateMachine):
    """Two workers on one user in any interleaving, against Redis and in memory at once: both must answer alike.

    A worker reads, then writes what it planned from what it read, at any later time, with any offset.
    """

    client: redis.Redis
    names: Names

    def __init__(self) -> None:
        super().__init__()
        self.redis = RedisStateStore(self.client, self.names, LAYOUT)
        self.memory = MemoryStateStore(LAYOUT)
        self.raw = RedisValues(self.client, self.names)
        self.raw.drop(USER)
        self.bases: list[Loaded] = [None, None]
        self.clock = 0
        self.last_done: Write | None = None

    workers = st.integers(0, 1)
    offsets = st.integers(0, 30)

    @initialize()
    def begin(self) -> None:
        self.raw.drop(USER)

    @rule(worker=workers)
    def read(self, worker: int) -> None:
        self.bases[worker] = load(self.redis)

    @rule(worker=workers, offset=offsets, topic=st.sampled_from([b"a" * 16, b"b" * 16]), data=st.data())
    def refresh(self, worker: int, offset: int, topic: bytes, data: st.DataObject) -> None:
        base = self.bases[worker]
        length = len(base.slots) if isinstance(base, State) else 0
        kept = data.draw(st.integers(0, length), label="kept")
        count = data.draw(st.integers(0 if kept else 1, 20), label="new")
        self.clock += 100
        new = slots(events(self.clock, self.clock + count), seed=self.clock)
        self.write(write(USER, base, fence(offset, topic), kept, new))

    @rule(worker=workers, offset=offsets)
    def forget(self, worker: int, offset: int) -> None:
        self.write(delete(USER, self.bases[worker], fence(offset, b"a" * 16)))

    def write(self, made: Write) -> None:
        before = load(self.redis)
        outcome = apply(self.redis, made)
        assert apply(self.memory, made) is outcome
        if outcome is OK:
            self.last_done = made
            if not isinstance(made.base, Invalid) and isinstance(before, State | Deleted):
                old, new = before.header.fence, made.header.fence
                assert old[:2] != new[:2] or old.offset <= new.offset, "an older offset won"
        else:
            assert describe(load(self.redis)) == describe(before), "refused, and yet something changed"
            if made.base is not None and describe(before) == describe(made.base):
                assert outcome is SUPERSEDED, "nothing had changed, but it was a conflict"

    @precondition(lambda self: self.last_done is not None)
    @rule(where=st.integers(0, 1 << 30), cut=st.booleans())
    def damage(self, where: int, cut: bool) -> None:
        value = self.raw.peek(USER)
        if value:
            where %= len(value)
            broken = value[:where] if cut else value[:where] + bytes([value[where] ^ 1]) + value[where + 1 :]
            self.raw.poke(USER, broken)
            self.memory.values[USER] = broken
            self.last_done = None

    @rule()
    def flush(self) -> None:
        self.raw.drop(USER)
        self.memory.values.pop(USER, None)
        self.last_done = None

    @invariant()
    def both_hold_the_same(self) -> None:
        assert self.raw.peek(USER) == self.memory.values.get(USER)

    @invariant()
    def what_was_done_last_is_there_whole(self) -> None:
        if self.last_done is None:
            return
        found, made = load(self.redis), self.last_done
        assert isinstance(found, State | Deleted), found
        assert found.header[:-1] == made.header[:-1]
        if isinstance(found, State):
            stays = made.base.slots[: made.kept] if isinstance(made.base, State) else made.slots[:0]
            assert found.slots.tobytes() == np.concatenate([stays, made.slots]).tobytes()


def test_any_interleaving_of_two_writers(redis_client: redis.Redis, prefix: str) -> None:
    machine = type("Machine", (TwoWriters,), {"client": redis_client, "names": Names(prefix)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=100,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


# What only Redis has.


@pytest.fixture
def keys(redis_client: redis.Redis, prefix: str) -> RedisValues:
    return RedisValues(redis_client, Names(prefix))


def test_the_script_is_sent_again_to_a_redis_that_lost_it(redis_client: redis.Redis, prefix: str) -> None:
    store = RedisStateStore(redis_client, Names(prefix), LAYOUT)
    redis_client.script_flush()
    users = [b"a", b"b", b"c"]
    assert store.apply([write(u, None, fence(1), 0, slots(events(0, 1))) for u in users]) == [OK] * 3
    assert all(isinstance(found, State) for found in store.load(users))


def test_times_to_live(redis_client: redis.Redis, prefix: str, keys: RedisValues) -> None:
    key = keys.key(USER)
    store = RedisStateStore(redis_client, Names(prefix), LAYOUT, ttl_s=50, deleted_ttl_s=20)
    forever = RedisStateStore(redis_client, Names(prefix), LAYOUT)
    base = stored(store, 5)
    assert 40_000 < redis_client.pttl(key) <= 50_000
    redis_client.pexpire(key, 1000)
    assert apply(store, write(USER, base, fence(11), 5, slots(events(5, 6)))) is OK
    assert 40_000 < redis_client.pttl(key) <= 50_000, "an append in place renews it"
    assert apply(forever, write(USER, load(store), fence(12), 6, slots(events(6, 7)))) is OK
    assert redis_client.pttl(key) == -1
    assert apply(store, delete(USER, load(store), fence(13))) is OK
    assert 10_000 < redis_client.pttl(key) <= 20_000
    assert apply(forever, write(USER, load(store), fence(14), 0, slots(events(0, 1)))) is OK
    assert redis_client.pttl(key) == -1


def test_another_type_under_our_key_is_healed(redis_client: redis.Redis, prefix: str, keys: RedisValues) -> None:
    store = RedisStateStore(redis_client, Names(prefix), LAYOUT)
    redis_client.rpush(keys.key(USER), "a", "b")
    found = load(store)
    assert isinstance(found, Invalid)
    assert apply(store, write(USER, found, fence(1), 0, slots(events(0, 2)))) is OK
    assert isinstance(load(store), State)


def test_an_append_moves_one_slot_and_not_the_state(redis_client: redis.Redis, prefix: str, keys: RedisValues) -> None:
    store = RedisStateStore(redis_client, Names(prefix), LAYOUT)
    base = stored(store, 200)
    sent = redis_client.info("stats")["total_net_input_bytes"]
    grows = redis_client.memory_usage(keys.key(USER))
    assert apply(store, write(USER, base, fence(11), 200, slots(events(200, 201)))) is OK
    value_bytes = LAYOUT.value_bytes(256)
    assert redis_client.info("stats")["total_net_input_bytes"] - sent < 1000 + LAYOUT.slot_bytes
    assert grows is not None
    used = redis_client.memory_usage(keys.key(USER), samples=0)
    assert used is not None
    assert used < 1.3 * value_bytes


def test_damage_to_any_single_bit_of_what_counts_is_seen(
    redis_client: redis.Redis, prefix: str, keys: RedisValues
) -> None:
    store = RedisStateStore(redis_client, Names(prefix), LAYOUT)
    stored(store, 3)
    value = keys.peek(USER)
    assert value is not None
    for at in range(LAYOUT.value_bytes(3)):
        keys.poke(USER, value[:at] + bytes([value[at] ^ (1 << at % 8)]) + value[at + 1 :])
        assert isinstance(load(store), Invalid), f"byte {at}"


def test_redis_away_is_unavailable_and_names_the_place() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    client = connect(f"redis://:secret@127.0.0.1:{port}/0", timeout_s=0.2)
    store = RedisStateStore(client, Names(), LAYOUT)
    for call in (lambda: load(store), lambda: apply(store, delete(USER, None, fence(1)))):
        with pytest.raises(UnavailableError, match=f"127.0.0.1:{port}") as raised:
            call()
        assert "secret" not in str(raised.value)


def test_a_redis_that_refuses_us_is_a_matter_of_configuration(redis_client: redis.Redis, redis_url: str) -> None:
    redis_client.acl_setuser("nobody", enabled=True, passwords=["+pw"], commands=["+ping"], reset=True)
    try:
        host = redis_url.split("//")[1]
        for user in ("nobody:pw", "nobody:wrong"):
            store = RedisStateStore(connect(f"redis://{user}@{host}"), Names(), LAYOUT)
            with pytest.raises(ConfigError, match="refuses us"):
                load(store)
    finally:
        redis_client.acl_deluser("nobody")


def test_a_redis_url_that_is_none() -> None:
    with pytest.raises(ConfigError, match="redis_url"):
        connect("http://example.com")


def test_the_first_model_becomes_the_active_one(redis_client: redis.Redis, prefix: str) -> None:
    names = Names(prefix)
    assert publish_active(redis_client, names, "aa") == "aa"
    assert publish_active(redis_client, names, "bb") == "aa"
    redis_client.delete(names.active_key)


def test_a_full_redis_and_one_that_is_a_replica_now_are_waited_for(redis_client: redis.Redis, prefix: str) -> None:
    """By commands as by the script, whose errors redis-py tells otherwise."""
    store, names = RedisStateStore(redis_client, Names(prefix), LAYOUT), Names(prefix)

    def write_both() -> None:
        for call in (
            lambda: publish_active(redis_client, names, "aa"),
            lambda: apply(store, write(USER, None, fence(1), 0, slots(events(0, 1)))),
        ):
            with pytest.raises(UnavailableError, match=says):
                call()

    says = "raise its maxmemory"
    redis_client.config_set("maxmemory", 1)
    try:
        write_both()
    finally:
        redis_client.config_set("maxmemory", 0)
    says = "is it running"
    redis_client.replicaof("127.0.0.1", 1)
    try:
        write_both()
    finally:
        redis_client.replicaof("NO", "ONE")


def test_the_place_of_the_revision_is_the_schemas() -> None:
    made = write(USER, None, fence(1), 0, slots(events(0, 1)))
    store = MemoryStateStore(LAYOUT)
    apply(store, made)
    assert store.values[USER][slice(*REVISION_AT)] == made.header.revision
