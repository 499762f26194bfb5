"""The graphs on every provider of this machine: what they make per second, how far from the CPU's numbers, on which nodes.

Untrained models of the presets: speed does not depend on weights, and rounding shows more in them than in trained ones
(docs/gpu.md). A run is measured as a worker sees it, from arrays in memory to arrays in memory, padding and copies included.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np

from bench.models import random_bundle
from bench.parity import Parity, compare
from bench.result import Result
from encoder.providers import LADDER, import_onnxruntime
from encoder.runtime import Runtime, RuntimeConfig
from schemas.bundle import PRESETS
from schemas.errors import ConfigError, ProviderError

#: Batches that would take longer are not run.
_LONGEST_RUN_S = 1.5


@dataclass(frozen=True)
class AcceleratorsBench:
    """
    Attributes:
        providers: those that do not run here are named and left out; the CPU is always measured, since it is the reference.
        batches: users of a run.
        candidates: of each user, where they are crossed.
        seconds: that each point is measured for, at least.
        threads: of a session on the CPU.
    """

    providers: tuple[str, ...] = LADDER
    presets: tuple[str, ...] = ("small", "medium")
    batches: tuple[int, ...] = (1, 16, 64, 256)
    candidates: int = 256
    seconds: float = 0.5
    threads: int = 1
    precision: Literal["auto", "fp32", "fp16"] = "auto"

    def __post_init__(self) -> None:
        unknown = [name for name in self.presets if name not in PRESETS]
        if unknown or not self.presets:
            raise ConfigError(f"presets: {unknown or 'none named'}: choose from {', '.join(PRESETS)}")
        if not self.batches or min(self.batches) < 1:
            raise ConfigError(f"batches: {self.batches}: name numbers of users, 1 or more")


@dataclass
class Measured:
    """What one provider did with one preset."""

    provider: str
    preset: str
    precision: str
    on_device: float
    start_s: float
    per_s: dict[str, dict[int, float]] = field(default_factory=dict)
    parity: Parity | None = None

    def as_details(self) -> dict[str, Any]:
        return {
            "provider": self.provider,
            "preset": self.preset,
            "precision": self.precision,
            "nodes_on_device": round(self.on_device, 4),
            "start_s": round(self.start_s, 2),
            "per_s": {
                graph: {str(batch): round(value) for batch, value in of.items()} for graph, of in self.per_s.items()
            },
            "parity": None if self.parity is None else self.parity._asdict(),
        }


def run(config: AcceleratorsBench, say: Callable[[str], None]) -> Result:
    """Measure each preset on each provider that runs here."""
    measured: list[Measured] = []
    absent: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="slipstream-bench-") as made:
        for preset in config.presets:
            bundle = random_bundle(Path(made) / preset, preset)
            reference = Runtime(bundle, RuntimeConfig(threads=config.threads))
            for provider in dict.fromkeys((*config.providers, "cpu")):
                if provider in absent:
                    continue
                started_s = time.perf_counter()
                try:
                    runtime = reference if provider == "cpu" else Runtime(bundle, _config(provider, config))
                except ProviderError as error:
                    absent[provider] = str(error)
                    say(f"{provider} is left out: {error}")
                    continue
                start_s = time.perf_counter() - started_s
                of = Measured(provider, preset, runtime.precision, runtime.share_on_device(), start_s)
                if runtime is not reference:
                    of.parity = compare(runtime, reference)
                of.per_s = _speeds(runtime, config)
                measured.append(of)
                say(f"{preset} on {provider} ({of.precision}): {_in_words(of)}")
    return Result(
        "accelerators",
        _figures(measured),
        {
            "presets": config.presets,
            "batches": config.batches,
            "candidates": config.candidates,
            "context": PRESETS[config.presets[0]].context,
            "threads": config.threads,
            "precision": config.precision,
        },
        {
            "measured": [of.as_details() for of in measured],
            "absent": absent,
            "devices": _devices(),
            "onnxruntime": import_onnxruntime().__version__,
        },
    )


def _speeds(runtime: Runtime, config: AcceleratorsBench) -> dict[str, dict[int, float]]:
    shape = runtime.shape
    context = shape.context
    rng = np.random.default_rng(2)
    most = max(config.batches)
    tokens = rng.standard_normal((most, context, shape.d_model)).astype(np.float32)
    some = runtime.encode(tokens[:1], np.full(1, context - 1))
    kv, scales = np.repeat(some.kv, most, axis=0), np.repeat(some.scales, most, axis=0)
    candidates = rng.standard_normal((most, config.candidates, shape.d_model)).astype(np.float32)
    past = np.ascontiguousarray(kv[:, : context - 1]), np.ascontiguousarray(scales[:, : context - 1])
    speeds: dict[str, dict[int, float]] = {"encode": {}, "append": {}, "cross": {}}
    for b in config.batches:
        last, zero = np.full(b, context - 1), np.zeros(b, np.int64)
        encode = partial(runtime.encode, tokens[:b], last)
        append = partial(runtime.append, tokens[:b, :1], past[0][:b], past[1][:b], last, zero)
        cross = partial(runtime.cross, candidates[:b], kv[:b], scales[:b], last + 1)
        ways: tuple[tuple[str, int, Callable[[], object]], ...] = (
            ("encode", b, encode),
            ("append", b, append),
            ("cross", b * config.candidates, cross),
        )
        for name, made, once in ways:
            if made / max(speeds[name].values(), default=np.inf) > _LONGEST_RUN_S:
                continue  # a larger batch takes longer and tells nothing new
            speeds[name][b] = made / _seconds(once, config.seconds)
    return speeds


def _seconds(once: Callable[[], object], at_least_s: float) -> float:
    """The median of runs, after three that do not count: shapes are captured when they come again. One, where a run is long."""
    for _ in range(3):
        started_s = time.perf_counter()
        once()
        if time.perf_counter() - started_s > at_least_s:
            break
    taken: list[float] = []
    while sum(taken) < at_least_s or len(taken) < 3:
        started_s = time.perf_counter()
        once()
        taken.append(time.perf_counter() - started_s)
    return median(taken)


def _figures(measured: Sequence[Measured]) -> Mapping[str, float | int | None]:
    figures: dict[str, float | int | None] = {}
    for of in measured:
        for graph, by_batch in of.per_s.items():
            what = "candidates" if graph == "cross" else "states"
            figures[f"{of.preset}_{graph}_{of.provider}_{what}_per_s"] = max(by_batch.values())
        if of.parity is not None:
            figures[f"{of.preset}_{of.provider}_max_steps"] = of.parity.max_steps
            figures[f"{of.preset}_{of.provider}_min_cosine"] = of.parity.min_cosine
            figures[f"{of.preset}_{of.provider}_states_wrong"] = of.parity.users_wrong
            figures[f"{of.preset}_{of.provider}_nodes_on_device"] = of.on_device
    return figures


def _in_words(of: Measured) -> str:
    best = (f"{graph} {max(by_batch.values()):,.0f}/s" for graph, by_batch in of.per_s.items())
    return f"{', '.join(best)}; {of.on_device:.1%} of the nodes"


def _config(provider: str, config: AcceleratorsBench) -> RuntimeConfig:
    return RuntimeConfig((provider,), provider, config.threads, precision=config.precision)


def _devices() -> list[str]:
    """What accelerators there are, in the words of NVIDIA's driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.stdout.strip().splitlines() if done.returncode == 0 else []
