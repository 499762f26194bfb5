"""A bundle's graphs, ready to run on batches of any size.

Letters: B users, T new tokens, P past slots, U users and C candidates of a ranking request, d model width,
S = (2, L, G) keys or values, layers, kv heads; D head_dim.

On the CPU, batches run at the size that they have: shapes rounded up to buckets took 1.9 times as long over a mix of 600 shapes,
and saved no memory. Accelerators need the buckets (buckets.py) and run the fp16 form, built from the bundle's graphs at the start
(graph_weights.py).

On the CPU, slots and embeddings are the same bits whatever the batch, the padding and the way (graph_attention.py). Between kinds
of machine, versions of ONNX Runtime or providers they differ by rounding (docs/gpu.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoder.accelerate import openings
from encoder.buckets import profile
from encoder.bundle import Bundle
from encoder.providers import ProviderConfig, open_sessions, placement
from encoder.runs import Runs
from schemas.bundle import GRAPHS, ModelShape
from schemas.errors import ConfigError, ProviderError


class Slots(NamedTuple):
    """New slots, and the user embedding at each row's last token.

    Attributes:
        kv: `(B, T, *S, D)` i8.
        scales: `(B, T, *S)` f16.
        embedding: `(B, d)` f32, unit length.
    """

    kv: NDArray[np.int8]
    scales: NDArray[np.float16]
    embedding: NDArray[np.float32]


class Scores(NamedTuple):
    """Crossed candidates.

    Attributes:
        hidden: `(U, C, d)` f32, unit length.
        score: `(U, C)` f32, logit of an engagement.
    """

    hidden: NDArray[np.float32]
    score: NDArray[np.float32]


@dataclass(frozen=True)
class RuntimeConfig(ProviderConfig):
    """
    Attributes:
        graphs: which graphs to open; a ranker needs `cross` alone.
        precision: auto: fp32 on the CPU, fp16 above it.
        buckets: round shapes up to fixed sizes; None: above the CPU.
        cuda_graphs: launch a run as a whole (capture.py), on CUDA, in buckets.
        warm_up: run each graph before the first batch does, above the CPU.
        cache_dir: where TensorRT keeps engines; None: `slipstream/tensorrt` in the user's cache directory.
    """

    graphs: tuple[str, ...] = GRAPHS
    precision: Literal["auto", "fp32", "fp16"] = "auto"
    buckets: bool | None = None
    cuda_graphs: bool = True
    warm_up: bool = True
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.graphs or not set(self.graphs) <= set(GRAPHS):
            raise ConfigError(f"graphs: {self.graphs}: choose from {', '.join(GRAPHS)}")
        if self.precision not in ("auto", "fp32", "fp16"):
            raise ConfigError(f"precision: {self.precision!r}: choose from auto, fp32, fp16")

    def buckets_on(self, rung: str) -> bool:
        """Whether shapes are rounded up there."""
        return rung != "cpu" if self.buckets is None else self.buckets

    def captures_on(self, rung: str) -> bool:
        """Whether runs are captured there."""
        return rung == "cuda" and self.cuda_graphs and self.buckets_on(rung)

    def half_on(self, rung: str) -> bool:
        """Whether graphs run in their fp16 form there."""
        return rung != "cpu" if self.precision == "auto" else self.precision == "fp16"


class Runtime:
    """Runs a bundle's graphs. One caller at a time per instance is what it is made for; sessions themselves are thread-safe.

    Arguments are checked before they reach ONNX Runtime, whose own errors do not name the caller's mistake: a ConfigError then.
    Rows that are padded must be padded on the right, with finite numbers.

    Attributes:
        provider: the rung that all graphs run on: tensorrt, cuda or cpu.
        precision: fp32 or fp16.
        placement: of each graph, how many of its nodes each rung runs. What decides about shapes stays on the CPU always.
    """

    def __init__(self, bundle: Bundle, config: RuntimeConfig | None = None) -> None:
        """
        Raises:
            ProviderError, PrerequisiteError: as encoder.providers.open_sessions.
            BundleError: a graph does not load.
        """
        config = config or RuntimeConfig()
        self.shape: ModelShape = bundle.shape
        profiles = {name: profile(name, bundle.shape) for name in config.graphs}
        sessions, self.provider = open_sessions(
            partial(openings, bundle, profiles, config.half_on, config.captures_on, config.cache_dir), config
        )
        self.precision = "fp16" if config.half_on(self.provider) else "fp32"
        self.placement = {name: placement(session) for name, session in sessions.items()}
        buckets, captures = config.buckets_on(self.provider), config.captures_on(self.provider)
        self._runs = {name: Runs(session, profiles[name], buckets, captures) for name, session in sessions.items()}
        if self.provider != "cpu" and config.warm_up:
            for name, runs in self._runs.items():
                try:
                    runs.warm_up()
                except Exception as error:  # ONNX Runtime's exceptions share no base class
                    raise ProviderError(
                        f"{self.provider}: the graph {name} does not run: {str(error).strip()[:300]}"
                    ) from None
        # A product with a single row, or with several kv heads a single column, is summed in another order than one with two or
        # more of each (graph_attention.py).
        self._min_slots = 2 if self.shape.kv_heads > 1 or self.shape.heads == 1 else 1

    def encode(self, tokens: NDArray[np.float32], last: NDArray[np.int64]) -> Slots:
        """Slots from nothing.

        Args:
            tokens: `(B, T, d)` f32, T up to the context.
            last: `(B,)` i64, index of each row's last real token.
        """
        return self._refresh("encode", tokens, last, {}, 0)

    def append(
        self,
        tokens: NDArray[np.float32],
        past_kv: NDArray[np.int8],
        past_scales: NDArray[np.float16],
        past_length: NDArray[np.int64],
        last: NDArray[np.int64],
    ) -> Slots:
        """New slots on top of past ones.

        Args:
            tokens: `(B, T, d)` f32.
            past_kv: `(B, P, *S, D)` i8, P at least 1.
            past_scales: `(B, P, *S)` f16.
            past_length: `(B,)` i64, real past slots of each row; 0 is allowed and means `encode`.
            last: `(B,)` i64, index of each row's last real token; past_length + last is below the context.
        """
        self._check_past(past_kv, past_scales, past_length, len(tokens))
        past: dict[str, NDArray[Any]] = {
            "past_kv": self._enough(past_kv),
            "past_scales": self._enough(past_scales),
            "past_length": past_length,
        }
        return self._refresh("append", tokens, last, past, past_length)

    def cross(
        self,
        candidates: NDArray[np.float32],
        past_kv: NDArray[np.int8],
        past_scales: NDArray[np.float16],
        past_length: NDArray[np.int64],
    ) -> Scores:
        """Cross candidates with their users' states (DCAT): every candidate sees its user's past, and itself.

        Args:
            candidates: `(U, C, d)` f32.
            past_kv: `(U, P, *S, D)` i8, P at least 1.
            past_scales: `(U, P, *S)` f16.
            past_length: `(U,)` i64, 0 for a user without a state.
        """
        self._check_tokens("candidates", candidates)
        self._check_past(past_kv, past_scales, past_length, len(candidates))
        feed: dict[str, NDArray[Any]] = {
            "candidates": candidates,
            "past_kv": past_kv,
            "past_scales": past_scales,
            "past_length": past_length,
        }
        hidden, score = self._run("cross", feed)
        return Scores(hidden, score)

    def share_on_device(self) -> float:
        """Of all graphs' nodes, the part that `provider` itself runs."""
        nodes = [(of.get(self.provider, 0), sum(of.values())) for of in self.placement.values()]
        return sum(on for on, _ in nodes) / sum(every for _, every in nodes)

    def _refresh(
        self,
        graph: str,
        tokens: NDArray[np.float32],
        last: NDArray[np.int64],
        past: Mapping[str, NDArray[Any]],
        first_position: NDArray[np.int64] | int,
    ) -> Slots:
        self._check_tokens("tokens", tokens)
        n_rows, n_tokens, _ = tokens.shape
        _check(last.shape == (n_rows,) and last.dtype == np.int64, "last", last, f"i64 ({n_rows},)")
        if int(last.min()) < 0 or int(last.max()) >= n_tokens:
            raise ConfigError(f"last: {last.min()} to {last.max()} is outside of the {n_tokens} tokens of a row")
        if int((first_position + last).max()) >= self.shape.context:
            raise ConfigError(
                f"last: past and new tokens reach position {(first_position + last).max()}, the context ends at "
                f"{self.shape.context - 1}: anchor the window anew (encoder.plan)"
            )
        feed: dict[str, NDArray[Any]] = {"tokens": self._enough(tokens), "last": last, **past}
        kv, scales, embedding = self._run(graph, feed)
        return Slots(kv[:, :n_tokens], scales[:, :n_tokens], embedding)

    def _enough(self, slots: NDArray[Any]) -> NDArray[Any]:
        """With a pad behind a single slot or token, where one alone would be summed otherwise."""
        return slots if slots.shape[1] >= self._min_slots else np.concatenate([slots, np.zeros_like(slots)], axis=1)

    def _run(self, graph: str, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        if graph not in self._runs:
            raise ConfigError(f"graphs: {graph!r} was not opened, only {', '.join(self._runs)}")
        return self._runs[graph].run(feed)

    def _check_tokens(self, name: str, tokens: NDArray[np.float32]) -> None:
        d = self.shape.d_model
        good = tokens.dtype == np.float32 and tokens.ndim == 3 and tokens.shape[2] == d and tokens.size > 0
        _check(good, name, tokens, f"f32 (rows, tokens, {d}), no dimension 0")
        if name == "tokens":
            _check(tokens.shape[1] <= self.shape.context, name, tokens, f"at most {self.shape.context} tokens in a row")

    def _check_past(
        self, kv: NDArray[np.int8], scales: NDArray[np.float16], length: NDArray[np.int64], rows: int
    ) -> None:
        s = self.shape
        slot = (2, s.layers, s.kv_heads)
        good = kv.dtype == np.int8 and kv.ndim == 6 and kv.shape[0] == rows and kv.shape[2:] == (*slot, s.head_dim)
        _check(
            good and 1 <= kv.shape[1] <= s.context,
            "past_kv",
            kv,
            f"i8 ({rows}, 1 to {s.context}, {slot}, {s.head_dim})",
        )
        _check(
            scales.dtype == np.float16 and scales.shape == kv.shape[:5], "past_scales", scales, f"f16 {kv.shape[:5]}"
        )
        _check(length.dtype == np.int64 and length.shape == (rows,), "past_length", length, f"i64 ({rows},)")
        if int(length.min()) < 0 or int(length.max()) > kv.shape[1]:
            raise ConfigError(
                f"past_length: {length.min()} to {length.max()} is outside of the {kv.shape[1]} slots of past_kv"
            )


def _check(good: bool, name: str, array: NDArray[Any], expected: str) -> None:
    if not good:
        raise ConfigError(f"{name}: got {array.dtype} {array.shape}, expected {expected}")
