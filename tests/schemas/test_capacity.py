"""Capacities fill the blocks that Redis takes for a value."""

from __future__ import annotations

import pytest

from schemas.bundle import PRESETS
from schemas.capacity import STRING_BYTES, block_bytes, capacity_for
from schemas.state import StateLayout

SMALL = StateLayout(PRESETS["small"], "00" * 8)
KIB = 1024


@pytest.mark.parametrize(
    ("size", "block"),
    [
        (129, 160),
        (160, 160),
        (161, 192),
        (4096, 4096),
        (4097, 5 * KIB),
        (64 * KIB, 64 * KIB),
        (64 * KIB + 1, 80 * KIB),
        (80 * KIB + 1, 96 * KIB),
        (2048 * KIB - 1, 2048 * KIB),
    ],
)
def test_blocks_are_jemallocs(size: int, block: int) -> None:
    assert block_bytes(size) == block


def test_no_slot_more_would_fit() -> None:
    for length in range(1, 257):
        capacity = SMALL.capacity_for(length)
        block = block_bytes(SMALL.value_bytes(length) + STRING_BYTES)
        assert length <= capacity <= 256
        assert SMALL.value_bytes(capacity) + STRING_BYTES <= block
        assert capacity == 256 or SMALL.value_bytes(capacity + 1) + STRING_BYTES > block
        assert SMALL.capacity_for(capacity) == capacity, "the same block, the same capacity"


def test_capacity_never_passes_the_context() -> None:
    assert [capacity_for(length, 256, 152, 24) for length in (1, 23, 24)] == [1, 24, 24]


def test_steps_of_the_small_model() -> None:
    """What a user goes through between two anchorings."""
    assert sorted({SMALL.capacity_for(length) for length in range(192, 257)}) == [200, 229, 256]
