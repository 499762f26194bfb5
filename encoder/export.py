"""Turning weights into a bundle: graphs, tables, the catalogue. No torch."""

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
from encoder.tables import TABLES, encode_table
from encoder.weights import Weights, check_weights
from schemas.bundle import FP16, TABLE_CODES, Manifest, ModelShape
from schemas.errors import ConfigError
from schemas.vocabulary import Vocabulary


@dataclass(frozen=True)
class Catalogue:
    """The items that a model was trained on.

    Attributes:
        ids: `(n,)` i64, ascending.
        counts: `(n,)` i64, events of each in training.
    """

    ids: NDArray[np.int64]
    counts: NDArray[np.int64]


def export(checkpoint: Path | str, out: Path | str, tables: str = FP16) -> Manifest:
    """Turn what `train` wrote into a bundle at `out`.

    Args:
        tables: as export_weights.

    Raises:
        ConfigError: no such code of tables.
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
        tables=tables,
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
    tables: str = FP16,
    training: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> Manifest:
    """Write a bundle from weights.

    Args:
        tables: the code of the items' table (schemas.bundle.TABLE_CODES). The catalogue's vectors are of the table in this code.

    Raises:
        ConfigError: no such code of tables.
        ContractError: the weights are not those of `shape`.
        BundleError: as encoder.bundle.write_bundle.
    """
    if tables not in TABLE_CODES:
        raise ConfigError(f"tables: {tables!r} is no code of tables: choose one of {', '.join(TABLE_CODES)}")
    check_weights(weights, shape, vocabulary, str(directory))
    stored: dict[str, NDArray[Any]] = {name: weights[name].astype(np.float16) for name in TABLES[1:]}
    stored["items"] = encode_table(weights["items"], tables)
    items, actions, surfaces, gaps, candidate = (stored[name] for name in TABLES)
    features = Features(items, actions, surfaces, gaps, candidate, item_seeds)
    builders = {"encode": build_encode, "append": build_append, "cross": build_cross}
    return write_bundle(
        directory,
        shape=shape,
        vocabulary=vocabulary,
        item_seeds=item_seeds,
        graphs={name: build(weights, shape).SerializeToString(deterministic=True) for name, build in builders.items()},
        tables=tables,
        arrays={
            **stored,
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
