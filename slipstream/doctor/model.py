"""Whether the bundle is there, is what it says, and runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from encoder.bundle import Bundle, load_bundle
from encoder.runtime import Runtime, RuntimeConfig
from schemas.vocabulary import Vocabulary
from slipstream.doctor.finding import Finding, Level, skipped, told

MODEL, RUNS = "model", "model runs"
CHECKS = (MODEL, RUNS)


def model_findings(directory: Path, vocabulary: Vocabulary, config: RuntimeConfig) -> Iterator[Finding]:
    """A finding for each of CHECKS, in their order."""
    loaded: list[Bundle] = []

    def model() -> Finding:
        bundle = load_bundle(directory)
        loaded.append(bundle)
        bundle.manifest.vocabulary.require_prefix_of(vocabulary, f"this deployment's settings and {directory}")
        shape = bundle.shape
        size = sum(entry.bytes for entry in bundle.manifest.files.values())
        found = f"{bundle.model_id} at {directory}: {shape.layers} layers, d {shape.d_model}, {size / 1e6:,.0f} MB, hashes right"
        return Finding(MODEL, Level.OK, found, details={"model_id": bundle.model_id, "bytes": size})

    yield told(MODEL, model)
    if loaded:
        yield told(RUNS, lambda: _runs(loaded[0], config))
    else:
        yield from skipped([RUNS], "there is no bundle that can be read")


def _runs(bundle: Bundle, config: RuntimeConfig) -> Finding:
    began_s = time.perf_counter()
    runtime = Runtime(bundle, config)
    made = runtime.encode(np.zeros((1, 2, bundle.shape.d_model), np.float32), np.ones(1, np.int64))
    took_s = time.perf_counter() - began_s
    details = {"provider": runtime.provider, "precision": runtime.precision, "placement": runtime.placement}
    if not np.isfinite(made.embedding).all():
        advice = "export the model again, and compare its numbers with `slipstream bench accelerators`"
        return Finding(RUNS, Level.FAIL, f"on {runtime.provider} it makes numbers that are not finite", advice, details)
    share = f"{runtime.share_on_device():.1%} of its nodes there"
    found = f"on {runtime.provider} in {runtime.precision}, {share}, ready in {took_s:.1f} s"
    return Finding(RUNS, Level.OK, found, details=details)
