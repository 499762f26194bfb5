"""Reading a model's weights back out of the graphs of its bundle.

A bundle holds the fp32 form alone (graphs.py). The form for accelerators is built from it where it is needed, at the start of a
process, since that keeps what a model is apart from what runs it fast: a better fp16 graph must not give a model another id, and
with it other states, and every bundle that was ever written runs on every provider.

The graphs name their nodes by their place, and equal constants are stored once, whatever they are; so weights are found by the
nodes that take them. A graph that this build would write differently is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from encoder.graphs import build_cross, build_encode
from encoder.weights import Weights, weight_shapes
from schemas.bundle import ModelShape
from schemas.errors import BundleError
from schemas.vocabulary import Vocabulary

_BUILDERS = {"encode": build_encode, "cross": build_cross}


def read_weights(shape: ModelShape, encode: Path, cross: Path | None = None) -> dict[str, NDArray[np.float32]]:
    """What the graphs of a model are built from; `score.weight` and `score.bias` only if `cross` is named.

    Raises:
        BundleError: a file is no graph that this build writes for such a model.
    """
    weights = _read("encode", shape, encode)
    return weights if cross is None else weights | _read("cross", shape, cross)


def _read(graph: str, shape: ModelShape, path: Path) -> dict[str, NDArray[np.float32]]:
    try:
        stored = onnx.load(path).graph
    except Exception as error:  # protobuf's and onnx's share no base class
        raise BundleError(f"{path}: not an ONNX graph ({error}): copy or export the bundle again") from None
    marks = _marks(shape)
    template = _BUILDERS[graph](marks, shape).graph
    if [(node.op_type, node.name) for node in stored.node] != [(node.op_type, node.name) for node in template.node]:
        raise BundleError(
            f"{path}: not the graph that this build writes for such a model: export the model again, or, if its graphs are "
            "your own (docs/own-encoder.md), set the precision fp32"
        )
    values = {tensor.name: tensor for tensor in stored.initializer}
    root = np.sqrt(np.float32(shape.head_dim))  # queries hold it (graph_attention.queries)
    weights = {}
    for name, node, at in _uses(template, marks, root):
        source = values.get(stored.node[node].input[at])
        if source is None:
            raise BundleError(f"{path}: {name} is no constant of the graph: export the model again")
        value = np.array(numpy_helper.to_array(source), np.float32)
        if ".query." in name:
            value *= root
        if value.ndim == 2 and name != "positions":
            value = value.T  # as torch.nn.Linear keeps it
        if value.shape != marks[name].shape:
            raise BundleError(f"{path}: {name} has shape {value.shape}, the model has {marks[name].shape}")
        weights[name] = value
    return weights


def _marks(shape: ModelShape) -> dict[str, NDArray[np.float32]]:
    """Weights that tell who they are: each is full of a number of its own, from 1 up to 2."""
    shapes = weight_shapes(shape, Vocabulary())
    return {name: np.full(size, 1 + i / len(shapes), np.float32) for i, (name, size) in enumerate(shapes.items())}


def _uses(template: onnx.GraphProto, marks: Weights, root: np.float32) -> Iterator[tuple[str, int, int]]:
    """Which weight stands at which input of which node; each once."""
    names = {}
    for name, mark in marks.items():
        value = mark.flat[0]
        names[float(value / root if ".query." in name else value), mark.size] = name
    found: dict[str, str] = {}
    for tensor in template.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            constant = numpy_helper.to_array(tensor)
            if constant.size and (constant == constant.flat[0]).all():
                mark_of = (float(constant.flat[0]), constant.size)
                if mark_of in names:
                    found[tensor.name] = names[mark_of]
    for i, node in enumerate(template.node):
        for at, source in enumerate(node.input):
            if source in found:
                yield found.pop(source), i, at
