"""A thin builder of ONNX graphs: operators by name, constants once, readable names for profilers and placement reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 21
#: The newest IR that onnxruntime 1.31 and TensorRT 10 both read, and the oldest that opset 21 allows.
IR_VERSION = 10

_ELEMENT_TYPES = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float16): TensorProto.FLOAT16,
    np.dtype(np.int8): TensorProto.INT8,
    np.dtype(np.int64): TensorProto.INT64,
}


class Net:
    """One graph under construction. Values are referred to by their names, plain strings."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[tuple[Any, ...], str] = {}
        self._initializers: list[onnx.TensorProto] = []
        self._scope: list[str] = []

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names made inside begin with `name/`."""
        self._scope.append(name)
        try:
            yield
        finally:
            self._scope.pop()

    def input(self, name: str, dtype: type[np.generic], shape: Sequence[int | str]) -> str:
        """A graph input; a string in `shape` names a dynamic dimension."""
        self._inputs.append(helper.make_tensor_value_info(name, _ELEMENT_TYPES[np.dtype(dtype)], shape))
        return name

    def output(self, name: str, value: str, dtype: type[np.generic], shape: Sequence[int | str]) -> None:
        """Publish a value as a graph output called `name`."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=name))
        self._outputs.append(helper.make_tensor_value_info(name, _ELEMENT_TYPES[np.dtype(dtype)], shape))

    def constant(self, value: NDArray[Any], name: str = "constant") -> str:
        """An initializer; equal constants are stored once."""
        value = np.asarray(value, order="C")
        key = (value.dtype.str, value.shape, sha256(value.tobytes()).digest())
        if key not in self._constants:
            full_name = self._path(f"{name}_{len(self._constants)}")
            self._constants[key] = full_name
            self._initializers.append(numpy_helper.from_array(value, full_name))
        return self._constants[key]

    def f32(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def i64(self, *values: int) -> str:
        """A one-dimensional i64 constant: axes, shapes, starts."""
        return self.constant(np.array(values, np.int64))

    def __call__(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; returns the output's name."""
        name = self._path(f"{op}_{len(self._nodes)}")
        self._nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def cast(self, value: str, dtype: type[np.generic]) -> str:
        return self("Cast", value, to=_ELEMENT_TYPES[np.dtype(dtype)])

    def reshape(self, value: str, *dims: int) -> str:
        """0 keeps a dimension, -1 is what remains."""
        return self("Reshape", value, self.i64(*dims))

    def split(self, value: str, parts: int, axis: int) -> list[str]:
        """Equal parts of an axis."""
        name = self._path(f"Split_{len(self._nodes)}")
        outputs = [f"{name}_{part}" for part in range(parts)]
        self._nodes.append(helper.make_node("Split", [value], outputs, name=name, axis=axis, num_outputs=parts))
        return outputs

    def split_at(self, value: str, sizes: str, parts: int, axis: int) -> list[str]:
        """Parts of an axis whose sizes are the i64 value `sizes` `(parts,)`."""
        name = self._path(f"Split_{len(self._nodes)}")
        outputs = [f"{name}_{part}" for part in range(parts)]
        self._nodes.append(helper.make_node("Split", [value, sizes], outputs, name=name, axis=axis))
        return outputs

    def build(self) -> onnx.ModelProto:
        """The checked model."""
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, self._initializers)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="slipstream")
        onnx.checker.check_model(model, full_check=True)
        return model

    def _path(self, name: str) -> str:
        return "/".join([*self._scope, name])
