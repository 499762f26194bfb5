"""Attention of the fp16 form: past and new keys in one piece under one softmax, the pattern that accelerators fuse.

Slots are quantised as in the fp32 form, and attention sees what they hold, the int8 values times their scale. But sums are
rounded as they come, so a slot depends a little on the batch, on padding and on the way: docs/gpu.md tells how much.
Letters as in graphs.py and graph_heads.py; with one kv head the axis G is not there.
"""

from __future__ import annotations

from dataclasses import dataclass

from encoder.graph_attention import quantise, transposed
from encoder.graph_heads import Heads
from encoder.graph_past import Past
from encoder.weights import Weights


@dataclass(frozen=True)
class HalfKeys:
    """Keys and values of new tokens.

    Attributes:
        quantised: `(B, T, 2 G D)` f32 holding int8 values.
        stored_scale: `(B, T, 2 G)` f16.
        key, value: `(B, G, T, D)` f16, the int8 values times their scale.
    """

    quantised: str
    stored_scale: str
    key: str
    value: str


def half_keys(heads: Heads, weights: Weights, block: str, x: str) -> HalfKeys:
    """`(B, T, d)` normed -> keys and values."""
    net, s = heads.net, heads.shape
    quantised, scale, stored = quantise(heads, weights, block, x)
    by_head = net.reshape(quantised, 0, 0, 2 * s.kv_heads, -1)
    restored = net.reshape(net.narrow(net("Mul", by_head, scale)), 0, 0, -1)
    key, value = net.split(restored, 2, axis=2)  # (B, T, G D)
    return HalfKeys(quantised, net.reshape(stored, 0, 0, -1), heads.apart(key), heads.apart(value))


def half_attend(heads: Heads, q: str, new: HalfKeys, past: Past | None, layer: int, mask: str) -> str:
    """`(B, G, M, D)` -> `(B, T, d)`.

    Args:
        past: with scales as columns.
        mask: 0 or MASKED, broadcasts to `(B, G, M, K)`.
    """
    net = heads.net
    key, value = new.key, new.value
    if past is not None:
        key, value = (
            net("Concat", net("Mul", slots[layer], scales[layer]), own, axis=-2)
            for slots, scales, own in ((past.keys, past.key_scales, key), (past.values, past.value_scales, value))
        )
    score = net("Add", net("MatMul", q, transposed(heads, key)), mask)  # (B, G, M, K)
    attended = net("MatMul", net("Softmax", score, axis=-1), value)  # (B, G, M, D)
    return heads.tokens(attended, heads.shape.head_dim)
