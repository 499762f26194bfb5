"""A small model with random weights, for tests of what runs it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from encoder.bundle import Bundle
from encoder.refresh import Refresher
from encoder.runtime import Runtime, RuntimeConfig
from schemas.bundle import ModelShape
from schemas.state import StateLayout
from tests.bundles import random_bundle

#: The window is short, so that a test comes to its end with few events.
SHAPE = ModelShape(layers=2, d_model=32, heads=2, kv_heads=1, context=24, keep=18, rows=512)


class Model(NamedTuple):
    bundle: Bundle
    runtime: Runtime

    @property
    def layout(self) -> StateLayout:
        return self.bundle.layout

    def refresher(self) -> Refresher:
        return Refresher(self.runtime, self.bundle.features, self.layout)


def small_model(directory: Path, seed: int = 0) -> Model:
    bundle = random_bundle(directory, SHAPE, seed)
    return Model(bundle, Runtime(bundle, RuntimeConfig(graphs=("encode", "append"))))
