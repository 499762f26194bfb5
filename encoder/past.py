"""The past of a run: the slots of its users' states, side by side.

Letters: B users, P past slots, L layers, G kv heads, D head_dim.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.scales import decode_scales, encode_scales
from schemas.sequence import RECORD, Records
from schemas.state import Header, State, StateLayout


class Resident:
    """A state that stays in the process: its slots by their parts, as runs take them, with room for its header's capacity.

    An append touches what is new alone; it copied 68 KiB when states were kept as they are stored.

    Attributes:
        header: of the stored state.
    """

    __slots__ = ("_events", "_kv", "_layout", "_scales", "header")

    def __init__(self, header: Header, slots: NDArray[np.void], layout: StateLayout) -> None:
        """
        Args:
            slots: `(header.length,)` of StateLayout.slot; they are copied.
        """
        self._layout = layout
        self.header = header
        self._make_room(header.capacity)
        self._put(0, slots)

    @classmethod
    def of(cls, state: State, layout: StateLayout) -> Resident:
        """A state that was read."""
        return cls(state.header, state.slots, layout)

    @property
    def events(self) -> Records:
        """`(length,)` of RECORD."""
        return self._events[: self.header.length]

    def past(self, kept: int) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
        """Keys and values `(kept, 2, L, G, D)` and scales `(kept, 2, L, G)` of the first slots; views."""
        return self._kv[:kept], self._scales[:kept]

    def slots_crc(self, kept: int) -> int:
        """CRC-32 of the first `kept` slots, as they are stored."""
        if kept == self.header.length:
            return self.header.slots_crc
        slots = np.empty(kept, self._layout.slot)
        slots["event"], slots["kv"] = self._events[:kept], self._kv[:kept]
        slots["scale_codes"] = encode_scales(self._scales[:kept])
        return zlib.crc32(slots.tobytes())

    def become(self, header: Header, kept: int, slots: NDArray[np.void]) -> None:
        """The state that a refresh made of this one: the first `kept` slots stay, `slots` follow, the header is another."""
        if header.capacity != len(self._events):
            events, kv, scales = self._events[:kept], *self.past(kept)
            self._make_room(header.capacity)
            self._events[:kept], self._kv[:kept], self._scales[:kept] = events, kv, scales
        self._put(kept, slots)
        self.header = header

    def _make_room(self, capacity: int) -> None:
        s = self._layout.shape
        self._events = np.empty(capacity, RECORD)
        self._kv = np.empty((capacity, 2, s.layers, s.kv_heads, s.head_dim), np.int8)
        self._scales = np.empty((capacity, 2, s.layers, s.kv_heads), np.float16)

    def _put(self, start: int, slots: NDArray[np.void]) -> None:
        where = slice(start, start + len(slots))
        self._events[where] = slots["event"]
        self._kv[where], self._scales[where] = parts_of(slots)


def parts_of(slots: NDArray[np.void]) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Keys and values `(n, 2, L, G, D)` and scales `(n, 2, L, G)` of `(n,)` slots as they are stored."""
    return slots["kv"], decode_scales(slots["scale_codes"])


def gather_past(
    states: Sequence[tuple[NDArray[np.int8], NDArray[np.float16]]], padded_length: int, layout: StateLayout
) -> tuple[NDArray[np.int8], NDArray[np.float16], NDArray[np.int64]]:
    """Lay several users' slots side by side as the graphs' past.

    Args:
        states: B of them: keys and values `(length, 2, L, G, D)`, scales `(length, 2, L, G)`; possibly empty.
        padded_length: P, at least the longest length and at least 1.

    Returns:
        kv `(B, P, 2, L, G, D)` i8, scales `(B, P, 2, L, G)` f16, lengths `(B,)` i64. Padding is zero.
    """
    s = layout.shape
    kv = np.empty((len(states), padded_length, 2, s.layers, s.kv_heads, s.head_dim), np.int8)
    scales = np.empty((len(states), padded_length, 2, s.layers, s.kv_heads), np.float16)
    for row, (its_kv, its_scales) in enumerate(states):
        length = len(its_kv)
        kv[row, :length], kv[row, length:] = its_kv, 0
        scales[row, :length], scales[row, length:] = its_scales, 0
    return kv, scales, np.fromiter((len(its_kv) for its_kv, _ in states), np.int64, len(states))
