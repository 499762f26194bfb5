"""States made by hand, for tests of what moves them about without looking inside."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from encoder.store import Deleted, Loaded, Write, fresh_revision
from schemas.bundle import ModelShape
from schemas.sequence import Records
from schemas.state import Fence, Header, Kind, State, StateLayout

SHAPE = ModelShape(layers=2, d_model=16, heads=2, kv_heads=1, rows=64)
LAYOUT = StateLayout(SHAPE, "0123456789abcdef")
TOPIC = bytes(range(16))


def fence(offset: int, topic_id: bytes = TOPIC, partition: int = 3) -> Fence:
    return Fence(topic_id, partition, offset)


def slots(records: Records, seed: int = 0) -> NDArray[np.void]:
    """Slots of these events, filled with noise."""
    made = np.empty(len(records), LAYOUT.slot)
    rng = np.random.default_rng(seed)
    made.view(np.uint8)[:] = rng.integers(0, 256, len(records) * LAYOUT.slot_bytes, np.uint8)
    made["event"] = records
    return made


def write(user: bytes, base: Loaded, at: Fence, kept: int, new: NDArray[np.void], capacity: int | None = None) -> Write:
    """A write as a refresh makes it: keep `kept` slots of the base, put the new ones behind them."""
    stays = base.slots[:kept] if isinstance(base, State) else new[:0]
    whole = np.concatenate([stays, new])
    header = Header(
        kind=Kind.STATE,
        model_id=LAYOUT.model_id,
        revision=fresh_revision(),
        fence=at,
        length=len(whole),
        capacity=capacity or LAYOUT.capacity_for(len(whole)),
        newest_event_ms=int(whole["event"]["timestamp_ms"][-1]),
        arrived_ms=1000 + at.offset,
        encoded_ms=2000 + at.offset,
        slots_crc=zlib.crc32(whole.tobytes()),
        embedding=np.full(SHAPE.d_model, 0.25, np.float16),
    )
    return Write(user, base, header, kept, new)


def delete(user: bytes, base: Loaded, at: Fence) -> Write:
    header = Header(
        Kind.DELETED, LAYOUT.model_id, fresh_revision(), at, 0, 0, 0, 1000, 2000, 0, np.empty(0, np.float16)
    )
    return Write(user, base, header, 0, slots(np.empty(0, LAYOUT.slot["event"])))


def describe(loaded: Loaded) -> tuple[object, ...]:
    """What two stores must agree on."""
    match loaded:
        case State():
            return ("state", loaded.header[:-1], loaded.slots.tobytes())
        case Deleted():
            return ("deleted", loaded.header[:-1])
        case None:
            return ("absent",)
        case _:
            return ("invalid", loaded.found)
