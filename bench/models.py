"""Models with random weights: what a graph costs does not depend on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from encoder.bundle import Bundle, load_bundle
from encoder.export import Catalogue, export_weights
from encoder.features import item_seeds
from encoder.weights import random_weights
from schemas.bundle import PRESETS
from schemas.vocabulary import Vocabulary


def random_bundle(directory: Path, preset: str) -> Bundle:
    """Write a bundle of the preset's shape to `directory` and load it."""
    shape, vocabulary = PRESETS[preset], Vocabulary()
    export_weights(
        random_weights(shape, vocabulary),
        directory,
        shape=shape,
        vocabulary=vocabulary,
        item_seeds=item_seeds(0),
        catalogue=Catalogue(np.arange(1, 101), np.ones(100, np.int64)),
        training={"weights": "random"},
    )
    return load_bundle(directory)
