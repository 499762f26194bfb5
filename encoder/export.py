"""Turning weights into a bundle: graphs, half-precision tables, the catalogue. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.bundle import write_bundle
from encoder.checkpoint import load_checkpoint
from encoder.features import Features
from encoder.graph_parts import NORM_EPSILON
from encoder.graphs import build_append, build_cross, build_encode
from encoder.weights import Weights, check_weights
from schemas.bundle import Manifest, ModelShape
from schemas.vocabulary import Vocabulary

#: What the host looks up, in the order of Features' arguments.
TABLES = ("items", "actions", "surfaces", "gaps", "candidate")


@dataclass(frozen=True)
class Catalogue:
    """The items that a model was trained on.

    Attributes:
        ids: `(n,)` i64, ascending.
        counts: `(n,)` i64, events of each in training.
    """

    ids: NDArray[np.int64]
    counts: NDArray[np.int64]


def export(checkpoint: Path | str, out: Path | str) -> Manifest:
    """Turn what `train` wrote into a bundle at `out`.

    Raises:
        BundleError: there is no checkpoint, it is damaged, or something else lies at `out`.
    """
    saved = load_checkpoint(checkpoint)
    return export_weights(
        saved.weights,
        out,
        shape=saved.notes.shape,
        vocabulary=saved.notes.vocabulary,
        item_seeds=saved.notes.item_seeds,
        catalogue=Catalogue(saved.catalogue_ids, saved.catalogue_counts),
        training=saved.notes.training,
        metrics=saved.notes.metrics,
    )


def export_weights(
    weights: Weights,
    directory: Path | str,
    *,
    shape: ModelShape,
    vocabulary: Vocabulary,
    item_seeds: tuple[int, ...],
    catalogue: Catalogue,
    training: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> Manifest:
    """Write a bundle from weights.

    Raises:
        ContractError: the weights are not those of `shape`.
        BundleError: as encoder.bundle.write_bundle.
    """
    check_weights(weights, shape, vocabulary, str(directory))
    tables = {name: weights[name].astype(np.float16) for name in TABLES}
    items, actions, surfaces, gaps, candidate = (tables[name] for name in TABLES)
    features = Features(items, actions, surfaces, gaps, candidate, item_seeds)
    builders = {"encode": build_encode, "append": build_append, "cross": build_cross}
    return write_bundle(
        directory,
        shape=shape,
        vocabulary=vocabulary,
        item_seeds=item_seeds,
        graphs={name: build(weights, shape).SerializeToString(deterministic=True) for name, build in builders.items()},
        arrays={
            **tables,
            "catalogue_ids": catalogue.ids,
            "catalogue_vectors": psi(weights, features.items(catalogue.ids)).astype(np.float16),
            "catalogue_counts": catalogue.counts,
        },
        training=training,
        metrics=metrics,
    )


def psi(weights: Weights, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Item vectors, as encoder.model.PinFM.item_vectors. `(n, d)` -> `(n, d)`, unit length."""
    up, down = ((weights[f"psi.{part}.weight"].T, weights[f"psi.{part}.bias"]) for part in ("up", "down"))
    inner = embeddings @ up[0] + up[1]
    inner *= 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))  # GELU, tanh form
    x = embeddings + (inner @ down[0] + down[1])
    vectors: NDArray[np.float32] = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), NORM_EPSILON)
    return vectors
