"""A small model with random weights, for tests of what runs it."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from encoder.bundle import Bundle
from encoder.refresh import Refresher
from encoder.runtime import Runtime, RuntimeConfig
from schemas.bundle import ModelShape
from schemas.state import StateLayout
from tests.bundles import random_bundle


class Model(NamedTuple):
    bundle: Bundle
    runtime: Runtime

    @property
    def layout(self) -> StateLayout:
        return self.bundle.layout

    def refresher(self) -> Refresher:
        return Refresher(self.runtime, self.bundle.features, self.layout)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Its window is short, so that a test comes to its end with few events."""
    shape = ModelShape(layers=2, d_model=32, heads=2, kv_heads=1, context=24, keep=18, rows=512)
    bundle = random_bundle(tmp_path_factory.mktemp("model") / "bundle", shape)
    return Model(bundle, Runtime(bundle, RuntimeConfig(graphs=("encode", "append"))))
