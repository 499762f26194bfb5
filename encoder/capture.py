"""Runs of a CUDA session as captured graphs: one launch for what is else some 250 kernels, launched one by one.

Models of this size keep a GPU busy for less time than it takes to tell it what to do: an append for one user took 1.48 ms on an
H100, captured .45 ms, copies included. What is captured is a shape, with the addresses of its inputs and outputs; so it is done
for shapes that come again (buckets.py makes them few), each with buffers of its own on the device.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.buckets import Profile

NUMPY_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(int64)": np.int64,
}
#: A shape is captured when it comes for this time.
_CAPTURE_AT = 2
#: Device memory for the buffers of one session's captured shapes, and how many there may be.
_MAX_BYTES, _MAX_SHAPES = 1 << 30, 256
#: The run option and the value by which a run is told not to be captured.
_GRAPH_ID, _NO_GRAPH = "gpu_graph_id", "-1"


@dataclass(frozen=True)
class _Captured:
    binding: Any
    options: Any
    inputs: Mapping[str, Any]
    outputs: tuple[Any, ...]


class CapturedRuns:
    """Runs one session, from host arrays to host arrays. For several threads: one run at a time."""

    def __init__(self, ort: ModuleType, session: Any, profile: Profile, device: str = "cuda") -> None:
        """
        Args:
            session: opened with the provider option `enable_cuda_graph`.
            device: where buffers are, by ONNX Runtime's name.
        """
        self._ort = ort
        self._session = session
        self._profile = profile
        self._device = device
        self._lock = threading.Lock()
        self._seen: Counter[tuple[int, ...]] = Counter()
        self._captured: dict[tuple[int, ...], _Captured] = {}
        self._bytes = 0
        self._plain = self._options(_NO_GRAPH)
        self._types = {of.name: NUMPY_TYPES[of.type] for of in (*session.get_inputs(), *session.get_outputs())}
        self._rank = {of.name: of.shape for of in session.get_outputs()}

    def run(self, feed: Mapping[str, NDArray[Any]], sizes: Mapping[str, int]) -> list[NDArray[Any]]:
        """Outputs in the order of the profile.

        Args:
            feed: padded to `sizes`, contiguous.
            sizes: of each dynamic dimension, steps of the profile.
        """
        key = tuple(sizes[dim] for dim in self._profile.steps)
        with self._lock:
            captured = self._captured.get(key)
            if captured is None:
                self._seen[key] += 1
                if self._seen[key] >= _CAPTURE_AT:
                    captured = self._buffers(key, feed, sizes)
            if captured is None:
                return list(self._session.run(list(self._profile.outputs), dict(feed), self._plain))
            for name, value in feed.items():
                captured.inputs[name].update_inplace(value)
            self._session.run_with_iobinding(captured.binding, captured.options)
            captured.binding.synchronize_outputs()
            return [value.numpy() for value in captured.outputs]

    def _buffers(
        self, key: tuple[int, ...], feed: Mapping[str, NDArray[Any]], sizes: Mapping[str, int]
    ) -> _Captured | None:
        """Buffers of a shape; ONNX Runtime captures at the first run with them. None: there is no room for more."""
        shapes = {name: self._output_shape(name, sizes) for name in self._profile.outputs}
        needed = sum(value.nbytes for value in feed.values()) + sum(
            int(np.prod(shape)) * np.dtype(self._types[name]).itemsize for name, shape in shapes.items()
        )
        if len(self._captured) >= _MAX_SHAPES or self._bytes + needed > _MAX_BYTES:
            return None
        of = self._ort.OrtValue
        inputs = {name: of.ortvalue_from_numpy(value, self._device, 0) for name, value in feed.items()}
        outputs = tuple(
            of.ortvalue_from_shape_and_type(list(shape), self._types[name], self._device, 0)
            for name, shape in shapes.items()
        )
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in zip(shapes, outputs, strict=True):
            binding.bind_ortvalue_output(name, value)
        self._bytes += needed
        self._captured[key] = _Captured(binding, self._options(str(len(self._captured) + 1)), inputs, outputs)
        return self._captured[key]

    def _output_shape(self, name: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
        dims = self._profile.outputs[name]
        return (*(sizes[dim] for dim in dims), *self._rank[name][len(dims) :])

    def _options(self, graph_id: str) -> Any:
        options = self._ort.RunOptions()
        options.add_run_config_entry(_GRAPH_ID, graph_id)
        return options
