"""The past slots as inputs of a graph, taken apart by layer. Letters as in graphs.py.

Both ways avoid moving bytes: one strided pass takes the int8 slots apart, and what follows reads whole layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from encoder.graph_heads import Heads
from encoder.graph_net import Net
from schemas.bundle import ModelShape

#: Added to the score of a key that must not be seen: far below any score, its exp is 0, and it fits fp16 (-1e9 does not).
MASKED = -6e4


@dataclass(frozen=True)
class Past:
    """The past of all layers. With one kv head the axis `G` is not there.

    Attributes:
        length: `(B, 1)` i64.
        is_real: `(B, P)` bool.
        keys, values: per layer `(B, G, P, D)` holding int8 values.
        key_scales, value_scales: per layer `(B, G, 1, P)`, or `(B, G, P, 1)` as columns.

    All of the form's narrow type.
    """

    length: str
    is_real: str
    keys: list[str]
    values: list[str]
    key_scales: list[str]
    value_scales: list[str]


def past_inputs(net: Net, shape: ModelShape, batch: str, scales_as_columns: bool) -> Past:
    """Declare the graph inputs past_kv, past_scales and past_length. `batch` names their first dimension."""
    s, heads = shape, Heads(net, shape)
    parts = 2 * s.layers  # keys of every layer, then values
    kv = net.input("past_kv", np.int8, [batch, "P", 2, s.layers, s.kv_heads, s.head_dim])
    scales = net.input("past_scales", np.float16, [batch, "P", 2, s.layers, s.kv_heads])
    length = net.input("past_length", np.int64, [batch])
    with net.scope("past"):
        length = net("Unsqueeze", length, net.i64(1))
        steps = net("Slice", net.constant(np.arange(s.context)), net.i64(0), net("Shape", kv, start=1, end=2))  # (P,)
        is_real = net("Less", steps, length)
        pieces = net.split(net.reshape(kv, 0, 0, -1), parts, axis=2)  # (B, P, G D) i8
        tensors = [net.cast(heads.apart(piece), net.real) for piece in pieces]
        by_slot = net.reshape(scales, 0, 0, -1)  # (B, P, 2 L G)
        if not net.half:
            by_slot = net.cast(by_slot, np.float32)
        if scales_as_columns:
            scale_tensors = [heads.apart(piece) for piece in net.split(by_slot, parts, axis=2)]
        else:
            by_part = net("Transpose", by_slot, perm=[0, 2, 1])  # (B, 2 L G, P)
            scale_tensors = [heads.beside_keys(piece) for piece in net.split(by_part, parts, axis=1)]
    n = s.layers
    return Past(length, is_real, tensors[:n], tensors[n:], scale_tensors[:n], scale_tensors[n:])


def past_columns(heads: Heads, past: Past, columns: int) -> tuple[str, str]:
    """What `cross` puts behind keys and values: 0 or MASKED, and 1 for real slots; then zeros. Both `(U, G, P, columns)`."""
    net, s = heads.net, heads.shape
    zeros = [0.0] * (columns - 1)
    with net.scope("past"):
        is_real = net("Unsqueeze", past.is_real, net.i64(2))  # (U, P, 1)
        if s.kv_heads > 1:
            is_real = net("Expand", net("Unsqueeze", is_real, net.i64(1)), net.i64(1, s.kv_heads, 1, 1))
        return (
            net("Where", is_real, net.number(0, *zeros), net.number(MASKED, *zeros)),
            net("Where", is_real, net.number(1, *zeros), net.number(0, *zeros)),
        )
