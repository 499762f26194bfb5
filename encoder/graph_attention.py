"""Attention in the graphs. Letters as in graphs.py and graph_heads.py; with one kv head the axis G is not there.

In `encode` and `append` the order of operations is chosen so that **a slot's bytes depend on its events alone**: not on the
batch, not on padding, not on whether its past came from Redis or was computed in the same run. What makes it so, on ONNX
Runtime's CPU provider:
- A number of a matrix product does not depend on the other rows and columns (if there are two or more of each: a single row, and
  with several kv heads a single column, take another way when the right side is no constant; the runtime sees to that), and
  products are accumulated along the inner axis in order. Element-wise operators and normalisations see one row.
- What is left are the sums over keys, whose grouping changes with padding and with the split into past and new. So they are sums
  of integers: exp(score - max) is rounded to multiples of 2^-15 (`exp_steps`), weight times value scale to 2^-17 of the most that
  all of them can sum to (`weight_steps`), values are int8 already. Every partial sum is an integer below 2^24, exact in fp32 in
  any order. That rounding changes an output by about a tenth of what int8 keys and values do.
- Maxima are taken over keys that the query may see, and a masked key weighs exactly 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from encoder.graph_heads import Heads
from encoder.graph_parts import linear
from encoder.weights import Weights
from schemas.scales import MAX_SCALE, MIN_SCALE, SIGNIFICANT_BITS

#: A scale is 1/127 of the largest |x|, and so much more as rounding to the nearest of the grid may take away.
SCALE_HEADROOM = 1 + 2.0**-SIGNIFICANT_BITS
#: `(s + s * GRID) - s * GRID` is s rounded to the grid: the sum has no room for more bits, all else is exact.
GRID = 2.0 ** (24 - SIGNIFICANT_BITS)


def exp_steps(context: int) -> int:
    """exp(score - max) is rounded to multiples of 1 / this: the largest power of two of which `context + 1` sum below 2^24."""
    return 1 << int(math.log2(2**24 / (context + 1)))


def weight_steps(context: int) -> int:
    """What the weights of a query sum to, but for their rounding: the largest power of two that, times 127, stays below 2^24."""
    return 1 << int(math.log2(2**24 / 127 - context))


@dataclass(frozen=True)
class Keys:
    """What queries attend to, in one part or two (past, new); K counts the keys of all parts.

    Attributes:
        keys, values: of each part `(B, G, P or T, D)` f32 holding int8 values.
        key_scale, value_scale: `(B, G, 1, K)` f32.
        mask: 0 or MASKED, broadcasts to `(B, G, M, K)`.
        value_scale_max: `(B, G, M, 1)` f32, the largest value_scale that each query sees.
        sizes: i64 `(2,)`, keys of each part, if there are two.
    """

    keys: list[str]
    values: list[str]
    key_scale: str
    value_scale: str
    mask: str
    value_scale_max: str
    sizes: str | None


@dataclass(frozen=True)
class NewKeys:
    """Keys and values of new tokens, quantised: scale = max |x| / 127 of each token, head, and k or v, rounded up to the grid.

    Attributes:
        quantised: `(B, T, 2 G D)` f32 holding int8 values.
        stored_scale: `(B, T, 2 G)` f16.
        key, value: `(B, G, T, D)` f32.
        key_scale, value_scale: `(B, G, 1, T)` f32.
    """

    quantised: str
    stored_scale: str
    key: str
    value: str
    key_scale: str
    value_scale: str


def queries(heads: Heads, weights: Weights, block: str, x: str) -> str:
    """`(B, T, d)` normed -> `(B, G, M, D)`. 1 / sqrt(D) is put into the weights."""
    root = np.sqrt(np.float32(heads.shape.head_dim))
    scaled = {f"query.{part}": weights[f"{block}.query.{part}"] / root for part in ("weight", "bias")}
    return heads.rows(linear(heads.net, scaled, "query", x), heads.shape.head_dim)


def new_keys(heads: Heads, weights: Weights, block: str, x: str) -> NewKeys:
    """`(B, T, d)` normed -> keys and values."""
    net = heads.net
    quantised, scale, stored = quantise(heads, weights, block, x)
    key, value = net.split(quantised, 2, axis=2)  # (B, T, G D)
    by_head = net("Transpose", net.reshape(scale, 0, 0, -1), perm=[0, 2, 1])  # (B, 2 G, T)
    key_scale, value_scale = net.split(by_head, 2, axis=1)
    return NewKeys(
        quantised,
        net.reshape(stored, 0, 0, -1),
        heads.apart(key),
        heads.apart(value),
        heads.beside_keys(key_scale),
        heads.beside_keys(value_scale),
    )


def quantise(heads: Heads, weights: Weights, block: str, x: str) -> tuple[str, str, str]:
    """`(B, T, d)` normed -> int8 values `(B, T, 2 G D)` f32, their scales `(B, T, 2 G, 1)` f32, and the same as f16."""
    net, s = heads.net, heads.shape
    kv = net.widen(net.reshape(linear(net, weights, f"{block}.key_value", x), 0, 0, 2 * s.kv_heads, s.head_dim))
    largest = net("ReduceMax", net("Abs", kv), net.i64(-1), keepdims=1)  # (B, T, 2 G, 1)
    scale = net("Clip", net("Mul", largest, net.f32(SCALE_HEADROOM / 127)), net.f32(MIN_SCALE), net.f32(MAX_SCALE))
    far = net("Mul", scale, net.f32(GRID))
    scale = net("Sub", net("Add", scale, far), far)
    stored = net.cast(scale, np.float16)  # exact
    quantised = net("Clip", net("Round", net("Div", kv, scale)), net.f32(-127), net.f32(127))
    return net.reshape(quantised, 0, 0, -1), scale, stored


def attend(heads: Heads, q: str, seen: Keys) -> str:
    """Attention under one softmax, in sums that are exact (see the module). `(B, G, M, D)` -> `(B, T, d)`."""
    net = heads.net
    products = [net("MatMul", q, transposed(heads, key)) for key in seen.keys]
    score = products[0] if len(products) == 1 else net("Concat", *products, axis=-1)  # (B, G, M, K)
    score = net("Add", net("Mul", score, seen.key_scale), seen.mask)
    peak = net("ReduceMax", score, net.i64(-1), keepdims=1)
    shift = net("Sub", peak, net.f32(math.log(exp_steps(heads.shape.context))))
    weight = net("Round", net("Exp", net("Sub", score, shift)))  # integers up to exp_steps
    total = net("ReduceSum", weight, net.i64(-1), keepdims=1)
    steps = weight_steps(heads.shape.context)
    factor = net("Div", net.f32(steps), net("Mul", total, seen.value_scale_max))
    weight = net("Round", net("Mul", net("Mul", weight, seen.value_scale), factor))
    if seen.sizes is None:
        summed = net("MatMul", weight, seen.values[0])  # (B, G, M, D)
    else:
        parts = net.split_at(weight, seen.sizes, 2, axis=-1)
        summed = net("Add", *(net("MatMul", part, value) for part, value in zip(parts, seen.values, strict=True)))
    attended = net("Mul", summed, net("Mul", seen.value_scale_max, net.f32(1 / steps)))
    return heads.tokens(attended, heads.shape.head_dim)


def transposed(heads: Heads, keys: str) -> str:
    """`(B, G, K, D)` -> `(B, G, D, K)`; ONNX Runtime folds it into the product."""
    return heads.net("Transpose", keys, perm=[0, 2, 1] if heads.shape.kv_heads == 1 else [0, 1, 3, 2])
