"""States side by side, as the graphs take their past.

Letters: B users, P past slots, L layers, G kv heads, D head_dim.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.scales import decode_scales
from schemas.state import StateLayout


def gather_past(
    states: list[NDArray[np.void]], padded_length: int, layout: StateLayout
) -> tuple[NDArray[np.int8], NDArray[np.float16], NDArray[np.int64]]:
    """Lay several users' slots side by side as the graphs' past.

    Args:
        states: B arrays of slots, each `(length,)`, possibly empty.
        padded_length: P, at least the longest length and at least 1.

    Returns:
        kv `(B, P, 2, L, G, D)` int8, scales `(B, P, 2, L, G)` f16, lengths `(B,)` i64. Padding is zero.
    """
    s = layout.shape
    kv = np.zeros((len(states), padded_length, 2, s.layers, s.kv_heads, s.head_dim), np.int8)
    scales = np.zeros((len(states), padded_length, 2, s.layers, s.kv_heads), np.float16)
    lengths = np.fromiter(map(len, states), np.int64, len(states))
    for row, slots in enumerate(states):
        kv[row, : len(slots)] = slots["kv"]
        scales[row, : len(slots)] = decode_scales(slots["scale_codes"])
    return kv, scales, lengths
