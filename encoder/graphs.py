"""The three graphs of a bundle, built by hand from a model's weights: encode, append and cross.

Hand-built, since exported graphs give no say over what a slot is a function of (graph_parts.py), over the int8 past, or over the
last layer, which needs a state's user embedding for one token only. Plain operators of opset 21, none of ONNX Runtime's own:
its CPU, CUDA and TensorRT providers fuse them as they can.

There are two forms of each. The fp32 form is what a bundle holds: on a CPU it gives the same bits whatever the way
(graph_attention.py). The fp16 form (`half`) is for accelerators: matrix products, attention and the past in f16, and what their
rounding would spoil in f32: the residual stream, norms, the MLPs around the decoder, quantising (graph_half.py). Inputs and
outputs are the same.

Letters: B users, T new tokens, P past slots, L layers, G kv heads, H heads, D head_dim, d model width; U users and C candidates
of a ranking request. Inputs and outputs:

    encode  tokens f32 (B, T, d), last i64 (B,)                                   -> kv, scales, embedding
    append  tokens, past_kv i8 (B, P, 2, L, G, D), past_scales f16 (B, P, 2, L, G),
            past_length i64 (B,), last i64 (B,)                                   -> kv, scales, embedding
    cross   candidates f32 (U, C, d), past_kv, past_scales, past_length           -> hidden f32 (U, C, d), score f32 (U, C)

    kv i8 (B, T, 2, L, G, D), scales f16 (B, T, 2, L, G): the new slots; embedding f32 (B, d): unit length, of token `last`.

Tokens are padded on the right, past slots too; pads are finite numbers. `last` is each row's last real token, so T = last + 1
of them count. `append` takes past_length 0 too and then equals `encode`, but no dimension may be empty.
"""

from __future__ import annotations

import numpy as np
import onnx

from encoder.graph_attention import attend, new_keys, queries
from encoder.graph_cross import columns, cross_attend, cross_rows
from encoder.graph_half import HalfKeys, half_attend, half_keys
from encoder.graph_heads import Heads
from encoder.graph_masks import Masks
from encoder.graph_net import Net
from encoder.graph_parts import layer_norm, linear, mlp, phi
from encoder.graph_past import Past, past_columns, past_inputs
from encoder.weights import Weights
from schemas.bundle import ModelShape


def build_encode(weights: Weights, shape: ModelShape, half: bool = False) -> onnx.ModelProto:
    """Tokens to slots, from nothing."""
    return _build_refresh("encode", weights, shape, half)


def build_append(weights: Weights, shape: ModelShape, half: bool = False) -> onnx.ModelProto:
    """Tokens on top of past slots to new slots."""
    return _build_refresh("append", weights, shape, half)


def _build_refresh(name: str, weights: Weights, shape: ModelShape, half: bool) -> onnx.ModelProto:
    net = Net(name, half)
    s, heads = shape, Heads(net, shape)
    tokens = net.input("tokens", np.float32, ["B", "T", s.d_model])
    past = past_inputs(net, s, "B", scales_as_columns=half) if name == "append" else None
    last = net("Unsqueeze", net.input("last", np.int64, ["B"]), net.i64(1))  # (B, 1)
    n_tokens = net("Shape", tokens, start=1, end=2)
    steps = net("Slice", net.constant(np.arange(s.context)), net.i64(0), n_tokens)  # (T,)
    x = net("Add", phi(net, weights, "phi_in", tokens, np.sqrt(s.d_model)), _positions(net, weights, s, past, steps))
    masks = Masks(heads, steps, n_tokens, last, past)

    quantised, scales = [], []
    for layer in range(s.layers):
        block, is_last_layer = f"blocks.{layer}", layer == s.layers - 1
        with net.scope(block):
            normed = layer_norm(net, weights, f"{block}.norm_attention", x)
            new = (half_keys if half else new_keys)(heads, weights, block, normed)
            normed = net.narrow(normed)
            quantised.append(new.quantised)
            scales.append(new.stored_scale)
            if is_last_layer:
                # Nothing reads the outputs of the other tokens.
                x = net("Unsqueeze", net("GatherND", x, last, batch_dims=1), net.i64(1))  # (B, 1, d)
                normed = net("Unsqueeze", net("GatherND", normed, last, batch_dims=1), net.i64(1))
            q = queries(heads, weights, block, normed)
            if isinstance(new, HalfKeys):
                attended = half_attend(heads, q, new, past, layer, masks.mask(is_last_layer))
            else:
                attended = attend(heads, q, masks.keys(new, past, layer, is_last_layer))
            x = net("Add", x, net.widen(linear(net, weights, f"{block}.out", attended)))
            x = mlp(net, weights, block, x)

    final = net("Squeeze", layer_norm(net, weights, "norm", x), net.i64(1))  # (B, d)
    with net.scope("slots"):
        kv = net.cast(_concat(net, quantised), np.int8)  # (B, T, L 2 G D)
        kv = net("Transpose", net.reshape(kv, 0, 0, s.layers, 2, s.kv_heads, -1), perm=[0, 1, 3, 2, 4, 5])
        scale = net.reshape(_concat(net, scales), 0, 0, s.layers, 2, s.kv_heads)
        scale = net("Transpose", scale, perm=[0, 1, 3, 2, 4])
    net.output("kv", kv, np.int8, ["B", "T", 2, s.layers, s.kv_heads, s.head_dim])
    net.output("scales", scale, np.float16, ["B", "T", 2, s.layers, s.kv_heads])
    net.output("embedding", phi(net, weights, "phi_out", final), np.float32, ["B", s.d_model])
    return net.build()


def _positions(net: Net, weights: Weights, shape: ModelShape, past: Past | None, steps: str) -> str:
    """Rows of the position table for new tokens, `(T, d)` or `(B, T, d)`."""
    with net.scope("positions"):
        if past is not None:
            # Pads may reach past the table; where they point makes no difference.
            steps = net("Min", net("Add", past.length, steps), net.constant(np.array(shape.context)))  # (B, T)
        return net("Gather", net.constant(weights["positions"], "positions"), steps)


def build_cross(weights: Weights, shape: ModelShape, half: bool = False) -> onnx.ModelProto:
    """DCAT's crossing: every candidate attends to its user's past and to itself, at the position after the past."""
    net = Net("cross", half)
    s, heads = shape, Heads(net, shape)
    candidates = net.input("candidates", np.float32, ["U", "C", s.d_model])
    past = past_inputs(net, s, "U", scales_as_columns=True)
    with net.scope("positions"):
        position = net("Gather", net.constant(weights["positions"], "positions"), past.length)  # (U, 1, d)
    x = net("Add", phi(net, weights, "phi_in", candidates, np.sqrt(s.d_model)), position)
    mask, count = past_columns(heads, past, columns(heads))
    for layer in range(s.layers):
        block = f"blocks.{layer}"
        with net.scope(block):
            # Many candidates share a past: it is dequantised once.
            keys = net("Mul", past.keys[layer], past.key_scales[layer])
            values = net("Mul", past.values[layer], past.value_scales[layer])
            keys, values = net("Concat", keys, mask, axis=-1), net("Concat", values, count, axis=-1)
            normed = net.narrow(layer_norm(net, weights, f"{block}.norm_attention", x))
            attended = cross_attend(heads, cross_rows(heads, weights, block, normed), keys, values)
            x = net("Add", x, net.widen(linear(net, weights, f"{block}.out", attended)))
            x = mlp(net, weights, block, x)
    hidden = phi(net, weights, "phi_out", layer_norm(net, weights, "norm", x))
    score = net("Squeeze", linear(net, weights, "score", hidden), net.i64(2))
    net.output("hidden", hidden, np.float32, ["U", "C", s.d_model])
    net.output("score", score, np.float32, ["U", "C"])
    return net.build()


def _concat(net: Net, values: list[str]) -> str:
    return values[0] if len(values) == 1 else net("Concat", *values, axis=-1)
