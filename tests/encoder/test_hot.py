"""Hot states: their limit in bytes, their order, and that they are not trusted for ever."""

from __future__ import annotations

import numpy as np

from encoder.hot import HotStates
from encoder.past import Resident
from schemas.sequence import RECORD
from tests.encoder.states import LAYOUT, fence, slots, write


def state(length: int = 3, partition: int = 0) -> Resident:
    records = np.zeros(length, RECORD)
    records["timestamp_ms"] = np.arange(length)
    made = write(b"u", None, fence(1, partition=partition), 0, slots(records))
    return Resident(made.header, made.slots, LAYOUT)


SIZE = LAYOUT.value_bytes(LAYOUT.capacity_for(3))


def test_the_least_recently_used_go_first() -> None:
    hot = HotStates(LAYOUT, 3 * SIZE)
    for user in (b"a", b"b", b"c"):
        hot.put(user, state())
    assert hot.get(b"a") is not None
    hot.put(b"d", state())
    assert hot.get(b"b") is None
    assert all(hot.get(user) is not None for user in (b"a", b"c", b"d"))
    assert (len(hot), hot.bytes) == (3, 3 * SIZE)


def test_bytes_are_counted_through_changes() -> None:
    hot = HotStates(LAYOUT, 100 * SIZE)
    hot.put(b"a", state(3))
    hot.put(b"a", state(20))
    assert hot.bytes == LAYOUT.value_bytes(LAYOUT.capacity_for(20)) > SIZE
    hot.drop(b"a")
    hot.drop(b"a")
    assert (len(hot), hot.bytes) == (0, 0)


def test_a_limit_of_zero_keeps_nothing() -> None:
    hot = HotStates(LAYOUT, 0)
    hot.put(b"a", state())
    assert hot.get(b"a") is None
    assert not hot.keeps_any
    assert hot.bytes == 0


def test_users_of_lost_partitions_are_forgotten() -> None:
    hot = HotStates(LAYOUT, 10 * SIZE)
    hot.put(b"a", state(partition=1))
    hot.put(b"b", state(partition=2))
    hot.drop_partitions([2, 3])
    assert hot.get(b"a") is not None
    assert hot.get(b"b") is None
    assert hot.bytes == SIZE


def test_after_some_writes_it_must_be_read_again() -> None:
    hot = HotStates(LAYOUT, 10 * SIZE, recheck_every=2)
    hot.put(b"a", state())  # read
    for _ in range(2):
        assert hot.get(b"a") is not None
        hot.put(b"a", state())  # written
    assert hot.get(b"a") is None
    assert hot.bytes == 0
    hot.put(b"a", state())
    assert hot.get(b"a") is not None


def test_room_is_what_nobody_has_to_go_for() -> None:
    hot = HotStates(LAYOUT, 2 * SIZE)
    capacity = state().header.capacity
    hot.put(b"a", state())
    assert hot.has_room(b"b", capacity)
    hot.put(b"b", state())
    assert not hot.has_room(b"c", capacity)
    assert hot.has_room(b"a", capacity), "it has its own"
    assert not HotStates(LAYOUT, 0).has_room(b"a", capacity)
