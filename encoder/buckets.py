"""The sizes at which accelerators run a graph: every dynamic dimension is rounded up to a step of a fixed list. Pure.

A provider that compiles does so for a range of shapes and refuses what lies outside; and what CUDA's allocator keeps is of use
again only at a size that it has seen. So batches are padded with zeros up to a step, and what is more than the last step is run
in several pieces. Results are cut to the size that was asked for.

Letters as in graphs.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.bundle import ModelShape
from schemas.errors import ConfigError

Feed = Mapping[str, NDArray[Any]]
#: Most users of one run that makes states, most users and most candidates of each of one that crosses.
MAX_ROWS, MAX_CROSSED_USERS, MAX_CROSSED_CANDIDATES = 256, 64, 1024


def steps(most: int, least: int = 1) -> tuple[int, ...]:
    """Powers of two and from 16 on one and a half of them, ending with `most`: padding adds half at the most."""
    powers = [1 << i for i in range(most.bit_length())]
    between = [3 << i for i in range(3, most.bit_length())]
    return (*sorted(step for step in {*powers, *between} if least <= step < most), most)


@dataclass(frozen=True)
class Profile:
    """The sizes of one graph's inputs.

    Attributes:
        inputs: dimensions of each input: a number, or the letter of a dynamic one.
        outputs: dynamic dimensions of each output, those that lead it.
        steps: of each dynamic dimension.
        typical: what a compiler should make fastest.
        cut: the dimensions along which a batch may be run in pieces, since their entries do not know of each other.
    """

    inputs: Mapping[str, tuple[int | str, ...]]
    outputs: Mapping[str, tuple[str, ...]]
    steps: Mapping[str, tuple[int, ...]]
    typical: Mapping[str, int]
    cut: tuple[str, ...]

    def sizes(self, feed: Feed) -> dict[str, int]:
        """The dynamic dimensions of a batch."""
        return {
            dim: array.shape[axis]
            for name, array in feed.items()
            for axis, dim in enumerate(self.inputs[name])
            if isinstance(dim, str)
        }

    def shapes(self, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """The shape of each input at some sizes."""
        return {
            name: tuple(sizes[dim] if isinstance(dim, str) else dim for dim in dims)
            for name, dims in self.inputs.items()
        }

    def padded(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Each size rounded up to its step.

        Raises:
            ConfigError: one is 0 or beyond the last step.
        """
        for dim, size in sizes.items():
            if not 1 <= size <= self.steps[dim][-1]:
                raise ConfigError(
                    f"{dim}: {size} is outside of 1 to {self.steps[dim][-1]}, the sizes that the graph was prepared for"
                )
        return {dim: next(step for step in self.steps[dim] if step >= size) for dim, size in sizes.items()}

    def extremes(self) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
        """Least, typical and most of each dynamic dimension."""
        return (
            {dim: of[0] for dim, of in self.steps.items()},
            dict(self.typical),
            {dim: of[-1] for dim, of in self.steps.items()},
        )

    def pieces(self, feed: Feed) -> Iterator[tuple[dict[str, slice], Feed]]:
        """The parts of a batch that fit into the largest step, and where in each dimension they were."""
        sizes = self.sizes(feed)
        for dim in self.cut:
            most = self.steps[dim][-1]
            if sizes[dim] > most:
                for start in range(0, sizes[dim], most):
                    where = slice(start, min(start + most, sizes[dim]))
                    for inner, part in self.pieces(self._cut(feed, dim, where)):
                        yield {**inner, dim: where}, part
                return
        yield {}, feed

    def pad(self, feed: Feed, sizes: Mapping[str, int]) -> dict[str, NDArray[Any]]:
        """Zeros behind what is there."""
        shapes = self.shapes(sizes)
        return {name: _padded(array, shapes[name]) for name, array in feed.items()}

    def unpad(self, output: str, value: NDArray[Any], sizes: Mapping[str, int]) -> NDArray[Any]:
        """The part of an output that was asked for."""
        return value[tuple(slice(sizes[dim]) for dim in self.outputs[output])]

    def _cut(self, feed: Feed, dim: str, where: slice) -> Feed:
        return {
            name: array[tuple(where if of == dim else slice(None) for of in self.inputs[name])]
            for name, array in feed.items()
        }


def profile(graph: str, shape: ModelShape) -> Profile:
    """The profile of a model's graph."""
    s, cross = shape, graph == "cross"
    rows = "U" if cross else "B"
    slot = (2, s.layers, s.kv_heads)
    inputs: dict[str, tuple[int | str, ...]] = (
        {"candidates": ("U", "C", s.d_model)} if cross else {"tokens": ("B", "T", s.d_model), "last": ("B",)}
    )
    all_steps = {rows: steps(MAX_CROSSED_USERS if cross else MAX_ROWS)}
    if cross:
        all_steps["C"] = steps(MAX_CROSSED_CANDIDATES)
    else:
        all_steps["T"] = steps(s.context)
    if graph != "encode":
        inputs |= {
            "past_kv": (rows, "P", *slot, s.head_dim),
            "past_scales": (rows, "P", *slot),
            "past_length": (rows,),
        }
        all_steps["P"] = steps(s.context, least=min(16, s.context))
    outputs = (
        {"hidden": ("U", "C"), "score": ("U", "C")}
        if cross
        else {"kv": ("B", "T"), "scales": ("B", "T"), "embedding": ("B",)}
    )
    typical = {"B": 64, "T": min(4, s.context) if graph == "append" else s.context, "P": s.context, "U": 8, "C": 256}
    return Profile(
        inputs, outputs, all_steps, {dim: typical[dim] for dim in all_steps}, ("U", "C") if cross else ("B",)
    )


def _padded(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if array.shape == shape:
        return np.ascontiguousarray(array)
    padded = np.zeros(shape, array.dtype)
    padded[tuple(map(slice, array.shape))] = array
    return padded
