"""What states take in a Redis, and on the wire to it and from it.

The stored code is written by the encoder's own store. The other codes have no writer: values of their size are set instead.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import redis

from bench.events import random_records
from bench.state_codes import Code
from encoder.store import Outcome, Write, fresh_revision
from encoder.store_redis import RedisStateStore
from schemas.capacity import STRING_BYTES, block_bytes, capacity_for
from schemas.errors import MismatchError
from schemas.names import Names
from schemas.state import Fence, Header, Kind, State, StateLayout

_USER = b"bench-user-0001"
_FIRST_MS, _GAP_MS = 1_600_000_000_000, 600_000
#: Calls that are counted together, since Redis counts its own answers too.
_CALLS = 64


class Wire(NamedTuple):
    """Bytes on the wire, both ways, headers of Redis's protocol included."""

    append: int
    read: int
    embedding_read: int


def measure_size(client: redis.Redis, code: Code, layout: StateLayout, wire: Wire) -> dict[str, Any]:
    """A full state in a code: analytic, but for what this Redis takes for it, with its key and whatever allocator it has."""
    shape, header, slot = layout.shape, layout.header_bytes, code.slot_bytes(layout.shape)
    value = header + capacity_for(shape.context, header, slot, shape.context) * slot
    used = _used_by(client, value, layout)
    return {
        "kv_heads": shape.kv_heads,
        "code": code.name,
        "what": code.what,
        "slot_bytes": slot,
        "bytes_per_user": value,
        "redis_bytes": used,
        "redis_bytes_ratio": round(used / value, 4),
        "jemalloc_bytes": block_bytes(value + STRING_BYTES),
        "append_bytes": wire.append - layout.slot_bytes + slot,
        "read_bytes": wire.read - layout.value_bytes(shape.context) + value,
    }


def _used_by(client: redis.Redis, value_bytes: int, layout: StateLayout) -> int:
    key = Names().state_key(layout.model_id, _USER)
    # By a script, as the encoder writes: what a client SETs may be kept in a larger buffer that it was received in.
    client.eval("redis.call('SET', KEYS[1], string.rep('\\0', ARGV[1]))", 1, key, value_bytes)
    used = client.memory_usage(key, samples=0)
    client.delete(key)
    assert used is not None
    return used


def measure_steps(client: redis.Redis, layout: StateLayout) -> list[dict[str, Any]]:
    """What the encoder's writes take, at each capacity that a user's state goes through."""
    store = RedisStateStore(client, Names(), layout)
    key = Names().state_key(layout.model_id, _USER)
    steps = []
    capacities = sorted({layout.capacity_for(length) for length in range(1, layout.shape.context + 1)})
    for capacity in capacities:
        client.delete(key)
        _write(store, None, capacity, 0)
        used = client.memory_usage(key, samples=0)
        assert used is not None
        value = layout.value_bytes(capacity)
        steps.append({"capacity": capacity, "bytes": value, "redis_bytes": used, "ratio": round(used / value, 4)})
    client.delete(key)
    return steps


def measure_wire(client: redis.Redis, layout: StateLayout) -> Wire:
    """Of a full state: one appended slot, one read, one read of the embedding alone; as the encoder and the readers do them."""
    store = RedisStateStore(client, Names(), layout)
    key, context = Names().state_key(layout.model_id, _USER), layout.shape.context
    _write(store, None, context, 0)
    state = store.load([_USER])[0]
    silence = _moved(client, lambda: None)

    def append() -> None:
        nonlocal state
        assert isinstance(state, State)
        state = _write(store, state, context, context - 1)

    calls: list[Callable[[], Any]] = [
        append,
        lambda: client.get(key),
        lambda: client.getrange(key, 0, layout.header_bytes - 1),
    ]
    append()  # the script is there from now on
    found = Wire(*(round((_moved(client, call) - silence) / _CALLS) for call in calls))
    client.delete(key)
    return found


def _moved(client: redis.Redis, call: Callable[[], Any]) -> int:
    """Bytes in and out of Redis by _CALLS calls, and by asking for them."""

    def total() -> int:
        stats = client.info("stats")
        return int(stats["total_net_input_bytes"]) + int(stats["total_net_output_bytes"])

    before = total()
    for _ in range(_CALLS):
        call()
    return total() - before


def _write(store: RedisStateStore, base: State | None, length: int, kept: int) -> State:
    """Write a state of so many slots, of which `kept` are in the store; the state as it is then, for the next write."""
    layout, rng = store.layout, np.random.default_rng(length)
    slots = np.zeros(length, layout.slot)
    slots["event"] = random_records(length, _FIRST_MS, _GAP_MS, rng)
    offset = base.header.fence.offset + 1 if base is not None else 0
    newest_ms = int(slots["event"]["timestamp_ms"][-1])
    embedding = np.zeros(layout.shape.d_model, np.float16)
    header = Header(
        Kind.STATE, layout.model_id, fresh_revision(), Fence(bytes(16), 0, offset), length, layout.capacity_for(length),
        newest_ms, newest_ms, newest_ms, zlib.crc32(slots.tobytes()), embedding,
    )  # fmt: skip
    (outcome,) = store.apply([Write(_USER, base, header, kept, slots[kept:])])
    if outcome is not Outcome.OK:
        raise MismatchError(f"a write that nobody disturbed ended as {outcome.name}")
    return State(header, slots)
