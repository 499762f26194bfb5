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
#: Their outputs are not of their inputs' type.
_RETYPING = {"Cast", "Shape", "Less", "LessOrEqual", "Greater", "Not"}


class Net:
    """One graph under construction. Values are referred to by their names, plain strings.

    A graph of the fp16 form (`half`) says where numbers are f16 and where f32: `narrow` and `widen` stand where they change, and
    do nothing in the fp32 form. What is computed from a narrow value is narrow.

    Attributes:
        real: the type of narrow numbers: f16 in the fp16 form, else f32.
    """

    def __init__(self, name: str, half: bool = False) -> None:
        self._name = name
        self.half = half
        self.real: type[np.generic] = np.float16 if half else np.float32
        self._narrow: set[str] = set()
        self._narrowed: dict[str, str] = {}
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

    def number(self, *values: float) -> str:
        """A constant of the narrow type: a scalar, or what is given as one axis."""
        name = self.constant(np.array(values[0] if len(values) == 1 else values, self.real))
        if self.half:
            self._narrow.add(name)
        return name

    def weight(self, value: NDArray[Any], name: str, like: str) -> str:
        """A weight of the type of the value `like`."""
        return self.constant(value.astype(np.float16) if like in self._narrow else value, name)

    def i64(self, *values: int) -> str:
        """A one-dimensional i64 constant: axes, shapes, starts."""
        return self.constant(np.array(values, np.int64))

    def __call__(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; returns the output's name."""
        name = self._path(f"{op}_{len(self._nodes)}")
        self._nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        if op not in _RETYPING:
            self._inherit(inputs, [name])
        return name

    def narrow(self, value: str) -> str:
        """In the fp16 form as f16, once per value."""
        if not self.half or value in self._narrow:
            return value
        if value not in self._narrowed:
            self._narrowed[value] = self.cast(value, np.float16)
        return self._narrowed[value]

    def widen(self, value: str) -> str:
        """As f32."""
        return self.cast(value, np.float32) if value in self._narrow else value

    def cast(self, value: str, dtype: type[np.generic]) -> str:
        name = self("Cast", value, to=_ELEMENT_TYPES[np.dtype(dtype)])
        if self.half and dtype is np.float16:
            self._narrow.add(name)
        return name

    def reshape(self, value: str, *dims: int) -> str:
        """0 keeps a dimension, -1 is what remains."""
        return self("Reshape", value, self.i64(*dims))

    def split(self, value: str, parts: int, axis: int) -> list[str]:
        """Equal parts of an axis."""
        name = self._path(f"Split_{len(self._nodes)}")
        outputs = [f"{name}_{part}" for part in range(parts)]
        self._nodes.append(helper.make_node("Split", [value], outputs, name=name, axis=axis, num_outputs=parts))
        self._inherit([value], outputs)
        return outputs

    def split_at(self, value: str, sizes: str, parts: int, axis: int) -> list[str]:
        """Parts of an axis whose sizes are the i64 value `sizes` `(parts,)`."""
        name = self._path(f"Split_{len(self._nodes)}")
        outputs = [f"{name}_{part}" for part in range(parts)]
        self._nodes.append(helper.make_node("Split", [value, sizes], outputs, name=name, axis=axis))
        self._inherit([value], outputs)
        return outputs

    def build(self) -> onnx.ModelProto:
        """The checked model."""
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, self._initializers)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="slipstream")
        onnx.checker.check_model(model, full_check=True)
        return model

    def _inherit(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        if not self._narrow.isdisjoint(inputs):
            self._narrow.update(outputs)

    def _path(self, name: str) -> str:
        return "/".join([*self._scope, name])
