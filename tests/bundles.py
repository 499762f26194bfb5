"""Bundles of untrained models, for tests of what runs them: real graphs, random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from encoder.bundle import Bundle, load_bundle
from encoder.export import Catalogue, export_weights
from encoder.features import item_seeds
from encoder.weights import random_weights
from schemas.bundle import PRESETS, ModelShape
from schemas.vocabulary import Vocabulary


def random_bundle(
    path: Path,
    preset: str | ModelShape = "nano",
    seed: int = 0,
    items: int = 200,
    vocabulary: Vocabulary | None = None,
    tables: str = "fp16",
) -> Bundle:
    """Write a bundle with random weights to `path` and load it. Its catalogue holds the items 1 to `items`."""
    shape = PRESETS[preset] if isinstance(preset, str) else preset
    vocabulary = vocabulary or Vocabulary()
    rng = np.random.default_rng(seed)
    export_weights(
        random_weights(shape, vocabulary, seed),
        path,
        shape=shape,
        vocabulary=vocabulary,
        item_seeds=item_seeds(seed),
        catalogue=Catalogue(np.arange(1, items + 1), rng.integers(1, 100, items)),
        tables=tables,
        training={"weights": "random", "seed": seed},
    )
    return load_bundle(path)
