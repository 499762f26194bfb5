"""The ranker as one ONNX graph: crossing, learnable token and head, from a request's candidates to probabilities.

Built from the parts of encoder.graphs, by hand. Letters: U users, C candidates, P past slots, J tasks, k width of content.

    items f32 (U, C, d)            item embeddings (Features.items), not tokens
    features f32 (U, C, 5)         ranker.head.context
    past_kv, past_scales, past_length   as `cross`
    embedding f32 (U, d)           the state's user embedding, zeros without a state
    content f32 (U, C, k)          if it takes content; zeros where there is none
    -> probabilities f32 (U, C, J)

An input that the ranker has no use for is not there.
"""

from __future__ import annotations

import numpy as np
import onnx

from encoder.graph_cross import Rows, columns, cross_attend, cross_rows
from encoder.graph_heads import Heads
from encoder.graph_net import Net
from encoder.graph_parts import layer_norm, linear, mlp, phi
from encoder.graph_past import Past, past_columns, past_inputs
from encoder.weights import Weights
from ranker.head.context import NAMES
from schemas.bundle import ModelShape


def build_ranker(model: Weights, ranker: Weights, shape: ModelShape, early: bool, late: bool) -> onnx.ModelProto:
    """
    Args:
        model: of the PinFM.
        ranker: all others of ranker.head.model.Ranker, by their names there.
        early, late: its fusion.
    """
    net = Net("ranker")
    d, tasks = shape.d_model, len(ranker["head.tasks.bias"])
    items = net.input("items", np.float32, ["U", "C", d])
    features = net.input("features", np.float32, ["U", "C", len(NAMES)])
    states = []
    if early:
        states.append(_crossed(net, model, ranker, shape, items))
    if late:
        embedding = net("Unsqueeze", net.input("embedding", np.float32, ["U", d]), net.i64(1))  # (U, 1, d)
        states.append(net("Mul", phi(net, model, "psi", items), embedding))
    with net.scope("head"):
        context = net("Relu", linear(net, ranker, "head.context", features))
        probabilities = net("Sigmoid", _head(net, ranker, [*states, items, context]))
    net.output("probabilities", probabilities, np.float32, ["U", "C", tasks])
    return net.build()


def _crossed(net: Net, model: Weights, ranker: Weights, shape: ModelShape, items: str) -> str:
    """The crossing's output `(U, C, d)`; a token stands before each candidate if the ranker has one."""
    s, heads = shape, Heads(net, shape)
    past = past_inputs(net, s, "U", scales_as_columns=True)
    with net.scope("positions"):
        position = net("Gather", net.constant(model["positions"], "positions"), past.length)  # (U, 1, d)

    def entered(tokens: str) -> str:
        return net("Add", phi(net, model, "phi_in", tokens, np.sqrt(s.d_model)), position)

    before = _token(net, ranker) if "module.token" in ranker else None
    shared = "module.content.weight" not in ranker  # one token of each user serves all of its candidates
    x = entered(net("Add", items, net.constant(model["candidate"], "candidate")))
    first = entered(before) if before else ""
    mask, count = past_columns(heads, past, columns(heads))
    for layer in range(s.layers):
        block = f"blocks.{layer}"
        with net.scope(block):
            keys, values = _past(net, past, layer, mask, count)
            first_rows = None
            if first:
                first_rows = cross_rows(heads, model, block, layer_norm(net, model, f"{block}.norm_attention", first))
                if layer < s.layers - 1:  # what the last layer makes of the token nothing reads
                    first = _finish(net, model, block, first, cross_attend(heads, first_rows, keys, values))
                if shared:
                    first_rows = _for_each(heads, first_rows, items)
            rows = cross_rows(heads, model, block, layer_norm(net, model, f"{block}.norm_attention", x))
            x = _finish(net, model, block, x, cross_attend(heads, rows, keys, values, first_rows))
    return phi(net, model, "phi_out", layer_norm(net, model, "norm", x))


def _token(net: Net, ranker: Weights) -> str:
    """What stands before candidates: `(1, 1, d)`, or with content `(U, C, d)`."""
    token = net.constant(ranker["module.token"].reshape(1, 1, -1), "token")
    if "module.content.weight" not in ranker:
        return token
    weight = ranker["module.content.weight"]  # (d, k)
    content = net.input("content", np.float32, ["U", "C", weight.shape[1]])
    return net("Add", token, net("MatMul", content, net.constant(weight.T, "content.weight")))


def _past(net: Net, past: Past, layer: int, mask: str, count: str) -> tuple[str, str]:
    """Keys and values of a layer as cross_attend takes them, `(U, G, P, W)`."""
    keys = net("Mul", past.keys[layer], past.key_scales[layer])
    values = net("Mul", past.values[layer], past.value_scales[layer])
    return net("Concat", keys, mask, axis=-1), net("Concat", values, count, axis=-1)


def _finish(net: Net, model: Weights, block: str, x: str, attended: str) -> str:
    """The rest of the block."""
    return mlp(net, model, block, net("Add", x, linear(net, model, f"{block}.out", attended)))


def _for_each(heads: Heads, rows: Rows, items: str) -> Rows:
    """Rows of one token for each of C candidates: `(U, G, R, W)` -> `(U, G, C R, W)`, without the axis G if it is 1."""
    net, before = heads.net, [1] if heads.shape.kv_heads == 1 else [1, 1]
    repeats = net("Concat", net.i64(*before), net("Shape", items, start=1, end=2), net.i64(1), axis=0)
    return Rows(*(net("Tile", part, repeats) for part in rows))


def _head(net: Net, ranker: Weights, parts: list[str]) -> str:
    """Logits (ranker.head.net)."""
    normed = [layer_norm(net, ranker, f"head.norms.{i}", part) for i, part in enumerate(parts)]
    e = net("Concat", *normed, axis=-1)
    blocks = [_mask_block(net, ranker, f"head.blocks.{i}", e) for i in range(_count(ranker, "head.blocks"))]
    first = x = net("Concat", *blocks, axis=-1) if len(blocks) > 1 else blocks[0]
    for i in range(_count(ranker, "head.crosses")):
        x = net("Add", net("Mul", first, linear(net, ranker, f"head.crosses.{i}", x)), x)
    return linear(net, ranker, "head.tasks", x)


def _mask_block(net: Net, ranker: Weights, name: str, e: str) -> str:
    with net.scope(name):
        mask = linear(net, ranker, f"{name}.mask_down", net("Relu", linear(net, ranker, f"{name}.mask_up", e)))
        out = linear(net, ranker, f"{name}.out", net("Mul", e, mask))
        return net("Relu", layer_norm(net, ranker, f"{name}.norm", out))


def _count(ranker: Weights, of: str) -> int:
    """How many modules a list has."""
    return len({name.removeprefix(of).split(".")[1] for name in ranker if name.startswith(f"{of}.")})
