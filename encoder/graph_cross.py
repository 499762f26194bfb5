"""Attention of `cross`: candidates meet their user's past. Nothing of it is stored, so speed decides. Letters as in graphs.py."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoder.graph_attention import transposed
from encoder.graph_heads import Heads
from encoder.graph_parts import linear
from encoder.weights import Weights


def columns(heads: Heads) -> int:
    """How many columns queries, keys and values have behind their own: one is used; tensor cores want multiples of 8."""
    return 8 if heads.net.half else 1


class Rows(NamedTuple):
    """A layer's query, own key and own value of each candidate, `(U, G, M, W)`."""

    query: str
    key: str
    value: str


def cross_rows(heads: Heads, weights: Weights, block: str, x: str) -> Rows:
    """
    Queries, own keys and own values get a column more: 1, 0 and 1. So the product of queries and past keys includes the mask,
    and the weighted sum of values comes with the sum of the weights. W = D + `columns`; what is over is 0.

    Args:
        x: `(U, C, d)` normed.
    """
    net, s = heads.net, heads.shape
    more = columns(heads)
    width = s.head_dim + more
    root = np.sqrt(np.float32(s.head_dim))
    own_weight, own_bias = (
        _with_columns(weights[f"{block}.key_value.{part}"], 2 * s.kv_heads, more, 0).reshape(
            2, s.kv_heads, 1, width, -1
        )
        for part in ("weight", "bias")
    )
    own_bias[1, :, :, s.head_dim] = 1
    # Each query head gets its own copy of what its kv head shares, so that all are laid out alike.
    own_weight, own_bias = (np.repeat(value, heads.group, axis=2) for value in (own_weight, own_bias))
    extended = {
        "query.weight": _with_columns(weights[f"{block}.query.weight"] / root, s.heads, more, 0),
        "query.bias": _with_columns(weights[f"{block}.query.bias"] / root, s.heads, more, 1),
        "own.weight": own_weight.reshape(2 * s.heads * width, s.d_model),
        "own.bias": own_bias.reshape(-1),
    }
    own = net.split(linear(net, extended, "own", x), 2, axis=2)  # (U, C, H W)
    return Rows(*(heads.rows(part, width) for part in (linear(net, extended, "query", x), *own)))  # (U, G, M, W)


def cross_attend(heads: Heads, rows: Rows, past_keys: str, past_values: str, before: Rows | None = None) -> str:
    """Candidates attend to their user's past and each to itself.

    Args:
        past_keys: `(U, G, P, W)`, column D is the mask.
        past_values: `(U, G, P, W)`, column D is 1.
        before: of a token that stands before each candidate, which attends to it too.

    Returns:
        `(U, C, d)`, before the output projection.
    """
    net, s = heads.net, heads.shape
    more = columns(heads)
    seen = [rows] if before is None else [before, rows]
    own_scores = [net("ReduceSum", net("Mul", rows.query, own.key), net.i64(-1), keepdims=1) for own in seen]
    score = net("MatMul", rows.query, transposed(heads, past_keys))  # (U, G, M, P)
    peak = net("Max", net("ReduceMax", score, net.i64(-1), keepdims=1), *own_scores)  # (U, G, M, 1)
    total = net("MatMul", net("Exp", net("Sub", score, peak)), past_values)  # (U, G, M, W)
    for own, own_score in zip(seen, own_scores, strict=True):
        total = net("Add", total, net("Mul", net("Exp", net("Sub", own_score, peak)), own.value))
    sizes = net.i64(s.head_dim, 1, *([more - 1] if more > 1 else []))
    weighted, weight, *_ = net.split_at(total, sizes, 3 if more > 1 else 2, axis=-1)
    return heads.tokens(net("Div", weighted, weight), s.head_dim)


def _with_columns(value: NDArray[np.float32], heads: int, more: int, first: float) -> NDArray[np.float32]:
    """Give each head `more` outputs, of `first` and zeros: `(heads D, ...)` -> `(heads (D + more), ...)`."""
    by_head = value.reshape(heads, -1, *value.shape[1:])
    added = np.zeros((heads, more, *value.shape[1:]), np.float32)
    added[:, 0] = first
    return np.concatenate([by_head, added], axis=1).reshape(-1, *value.shape[1:])
