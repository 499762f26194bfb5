"""A bundle of the decayed bag, with the item tables of a trained model. Run: python make_bundle.py MODEL OUT

MODEL is a bundle, as `slipstream train` leaves it in var/model. Of its tables the bag takes those of items; actions, surfaces and
time gaps say nothing to it, so their rows are zeros, and a token is its item's embedding.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from bag import bag_shape, graphs
from numpy.typing import NDArray

from encoder.bundle import load_bundle, write_bundle
from encoder.contract import require_contract
from schemas.bundle import GAP_BUCKETS
from schemas.errors import SlipstreamError


def make(model: Path, out: Path) -> str:
    """Write the bundle, check what it promises, return its model id."""
    trained = load_bundle(model)
    old, vocabulary = trained.manifest, trained.manifest.vocabulary
    shape = bag_shape(old.shape.d_model, old.shape.rows, old.shape.context, old.shape.keep)
    vectors = trained.features.items(trained.catalogue_ids)  # (n, d)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)

    def nothing(*rows: int) -> NDArray[np.float16]:
        return np.zeros((*rows, shape.d_model), np.float16)

    arrays: dict[str, NDArray[Any]] = {
        "items": np.load(trained.directory / "items.npy"),
        "actions": nothing(len(vocabulary.actions)),
        "surfaces": nothing(len(vocabulary.surfaces)),
        "gaps": nothing(GAP_BUCKETS),
        "candidate": nothing(),
        "catalogue_ids": trained.catalogue_ids,
        "catalogue_vectors": vectors.astype(np.float16),
        "catalogue_counts": trained.catalogue_counts,
    }
    manifest = write_bundle(
        out,
        shape=shape,
        vocabulary=vocabulary,
        item_seeds=old.item_seeds,
        graphs=graphs(shape),
        arrays=arrays,
        tables=old.tables,
        training={"architecture": "decayed bag of items", "items of": old.model_id},
    )
    require_contract(load_bundle(out))
    return manifest.model_id


if __name__ == "__main__":
    try:
        print(make(Path(sys.argv[1]), Path(sys.argv[2])))
    except SlipstreamError as error:
        sys.exit(f"error: {error}")
