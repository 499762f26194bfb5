"""States for the ranker's tests: well-formed bytes of a layout, with made-up content."""

from __future__ import annotations

import zlib

import numpy as np

from schemas.bundle import PRESETS
from schemas.state import Fence, Header, Kind, StateLayout, encode_header, encode_state

MODEL_ID = "00112233445566ff"
LAYOUT = StateLayout(PRESETS["nano"], MODEL_ID)
ARRIVED_MS = 1_767_225_600_000


def made_state(seed: int, length: int = 5, layout: StateLayout = LAYOUT, arrived_ms: int = ARRIVED_MS) -> bytes:
    """The value of a state whose slots, events and embedding are random."""
    rng = np.random.default_rng(seed)
    slots = np.zeros(length, layout.slot)
    slots["kv"] = rng.integers(-127, 128, slots["kv"].shape)
    slots["scale_codes"] = rng.integers(64, 140, slots["scale_codes"].shape)
    slots["event"]["timestamp_ms"] = arrived_ms - 1000 * np.arange(length, 0, -1)
    slots["event"]["item_id"] = rng.integers(0, 1 << 40, length)
    embedding = rng.normal(size=layout.shape.d_model)
    header = Header(
        Kind.STATE,
        layout.model_id,
        rng.bytes(8),
        Fence(bytes(16), 0, seed),
        length,
        layout.capacity_for(length),
        int(slots["event"]["timestamp_ms"][-1]),
        arrived_ms,
        arrived_ms + 9,
        zlib.crc32(slots.tobytes()),
        (embedding / np.linalg.norm(embedding)).astype(np.float16),
    )
    return encode_state(header, slots, layout)


def made_marker(layout: StateLayout = LAYOUT) -> bytes:
    """The marker of a forgotten user."""
    no_embedding = np.empty(0, np.float16)
    return encode_header(
        Header(Kind.DELETED, layout.model_id, b"r" * 8, Fence(bytes(16), 0, 1), 0, 0, 0, 1, 1, 0, no_embedding), layout
    )
