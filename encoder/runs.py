"""Runs of one session: at the size of a batch or at the steps of its profile (buckets.py), plain or captured (capture.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.buckets import Profile
from encoder.capture import NUMPY_TYPES, CapturedRuns
from encoder.providers import import_onnxruntime


class Runs:
    """One graph, from arrays to arrays."""

    def __init__(self, session: Any, profile: Profile, buckets: bool, captures: bool) -> None:
        """
        Args:
            buckets: pad to the steps of the profile; needed to capture.
            captures: the session is one on CUDA, opened with `enable_cuda_graph`.
        """
        self._session = session
        self._profile = profile
        self._buckets = buckets
        self._captured = CapturedRuns(import_onnxruntime(), session, profile) if captures else None

    def run(self, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs, in the order of the profile.

        Raises:
            ConfigError: a dimension that cannot be cut is outside of the profile.
        """
        of = self._profile
        names = list(of.outputs)
        if not self._buckets:
            return list(self._session.run(names, dict(feed)))
        whole = of.sizes(feed)
        parts = []
        for where, part in of.pieces(feed):
            sizes = of.sizes(part)
            steps = of.padded(sizes)
            parts.append((where, sizes, self._at_steps(of.pad(part, steps), steps)))
        if len(parts) == 1:
            return [of.unpad(name, value, whole) for name, value in zip(names, parts[0][2], strict=True)]
        joined = []
        for i, name in enumerate(names):
            first, dims = parts[0][2][i], of.outputs[name]
            out = np.empty((*(whole[dim] for dim in dims), *first.shape[len(dims) :]), first.dtype)
            for where, sizes, values in parts:
                out[tuple(where.get(dim, slice(None)) for dim in dims)] = of.unpad(name, values[i], sizes)
            joined.append(out)
        return joined

    def warm_up(self) -> None:
        """Load kernels and make room, at the least and at the typical size."""
        types = {given.name: NUMPY_TYPES[given.type] for given in self._session.get_inputs()}
        for sizes in self._profile.extremes()[:2]:
            shapes = self._profile.shapes(sizes)
            self._at_steps({name: np.zeros(shape, types[name]) for name, shape in shapes.items()}, sizes)

    def _at_steps(self, feed: Mapping[str, NDArray[Any]], sizes: Mapping[str, int]) -> list[NDArray[Any]]:
        if self._captured is not None:
            return self._captured.run(feed, sizes)
        return list(self._session.run(list(self._profile.outputs), dict(feed)))
