"""How many slots a value has room for: as many as fit the block of memory that Redis takes for it anyway.

A string that grows in place is allocated up to twice its size, so capacity grows in steps, each a fresh value. Redis allocates by
jemalloc, whose blocks come in four sizes to each doubling: ... 48, 56, 64, 80, 96, 112, 128 KiB ... Steps that fill them waste no
block, and a state of few events is small.
"""

from __future__ import annotations

#: What Redis keeps in the block of a string besides it: a header of 9 bytes, and a zero behind.
STRING_BYTES = 10


def block_bytes(size: int) -> int:
    """The smallest block that has `size` bytes, more than 128 of them."""
    spacing = 1 << ((size - 1).bit_length() - 3)
    return -(-size // spacing) * spacing


def capacity_for(length: int, header_bytes: int, slot_bytes: int, context: int) -> int:
    """Slots, `length` to `context`, that fit the block of a value of `length` slots."""
    assert length <= context, (length, context)
    block = block_bytes(STRING_BYTES + header_bytes + length * slot_bytes)
    return min(context, (block - STRING_BYTES - header_bytes) // slot_bytes)
