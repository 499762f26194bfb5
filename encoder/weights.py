"""The names and shapes of a PinFM's weights: what training writes, what the graphs are built from.

Matrices are stored as torch.nn.Linear does, `(out, in)`. Letters: d model width, D head_dim, G kv_heads, R rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from schemas.bundle import GAP_BUCKETS, SUB_TABLES, ModelShape
from schemas.errors import ContractError
from schemas.vocabulary import Vocabulary

Weights = Mapping[str, NDArray[np.float32]]
#: Width of the hidden layer of a block's MLP, in d.
MLP_RATIO = 4


def weight_shapes(shape: ModelShape, vocabulary: Vocabulary) -> dict[str, tuple[int, ...]]:
    """Every weight of a model by name."""
    d, kv = shape.d_model, 2 * shape.kv_heads * shape.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "items": (SUB_TABLES, shape.rows, d // SUB_TABLES),
        "actions": (len(vocabulary.actions), d),
        "surfaces": (len(vocabulary.surfaces), d),
        "gaps": (GAP_BUCKETS, d),
        "candidate": (d,),
        # One row more than the context: a candidate stands behind a full window.
        "positions": (shape.context + 1, d),
        "log_scale": (),
        "score.weight": (1, d),
        "score.bias": (1,),
    }

    def linear(name: str, outputs: int, inputs: int) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs)
        shapes[f"{name}.bias"] = (outputs,)

    def norm(name: str) -> None:
        shapes[f"{name}.weight"] = (d,)
        shapes[f"{name}.bias"] = (d,)

    for mlp in ("phi_in", "phi_out", "psi"):
        linear(f"{mlp}.up", d, d)
        linear(f"{mlp}.down", d, d)
    for layer in range(shape.layers):
        block = f"blocks.{layer}"
        norm(f"{block}.norm_attention")
        linear(f"{block}.query", d, d)
        linear(f"{block}.key_value", kv, d)
        linear(f"{block}.out", d, d)
        norm(f"{block}.norm_mlp")
        linear(f"{block}.up", MLP_RATIO * d, d)
        linear(f"{block}.down", d, MLP_RATIO * d)
    norm("norm")
    return shapes


def random_weights(shape: ModelShape, vocabulary: Vocabulary, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Weights of an untrained model in which every part matters and nothing saturates. For tests and benchmarks."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, size in weight_shapes(shape, vocabulary).items():
        if name.endswith("norm.weight") or (".norm_" in name and name.endswith(".weight")):
            value = 1 + 0.1 * rng.standard_normal(size)
        elif name.endswith(".weight"):
            value = rng.standard_normal(size) / np.sqrt(size[-1])
        else:
            value = 0.3 * rng.standard_normal(size)
        weights[name] = value.astype(np.float32)
    return weights


def check_weights(weights: Weights, shape: ModelShape, vocabulary: Vocabulary, where: str) -> None:
    """Check names, shapes and that every number is finite.

    Raises:
        ContractError: `where` (the checkpoint) begins the message.
    """
    expected = weight_shapes(shape, vocabulary)
    if set(weights) != set(expected):
        missing, extra = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
        raise ContractError(
            f"{where}: weights missing {missing}, unknown {extra}: it belongs to another model; train again"
        )
    for name, size in expected.items():
        if weights[name].shape != size:
            raise ContractError(f"{where}: {name} has shape {weights[name].shape}, the model has {size}; train again")
        if not np.isfinite(weights[name]).all():
            raise ContractError(
                f"{where}: {name} holds numbers that are not finite: the training diverged; train again"
            )
