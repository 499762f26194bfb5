from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from encoder.checkpoint import NOTES, WEIGHTS, load_checkpoint
from encoder.export import export
from encoder.model import PinFM
from encoder.runtime import Runtime
from encoder.training import Progress, TrainReport
from schemas.errors import BundleError
from tests.encoder.trainings import ITEMS, circle_log, exported


@torch.no_grad()
def test_what_is_served_is_what_was_trained(trained: tuple[TrainReport, list[Progress]]) -> None:
    """Checkpoint, bundle, graphs and int8 against torch in full precision: the same items at the top."""
    checkpoint, bundle = load_checkpoint(trained[0].checkpoint), exported(trained[0])
    assert bundle.manifest.metrics == trained[0].metrics
    assert bundle.manifest.training["steps"] == 150
    assert bundle.manifest.training["config"]["negatives"] == 64
    np.testing.assert_array_equal(bundle.catalogue_ids, 7 * np.arange(ITEMS))
    assert bundle.catalogue_counts.sum() == 1600
    model = PinFM(checkpoint.notes.shape, checkpoint.notes.vocabulary)
    model.load_weights(checkpoint.weights)
    records = circle_log(seed=4).records[:600].reshape(24, -1).T.copy()  # (25, 24)
    tokens = bundle.features.window_tokens(records)
    hidden, _ = model.eval().encode(torch.from_numpy(tokens))
    embedding = Runtime(bundle).encode(tokens, np.full(len(tokens), 23)).embedding
    np.testing.assert_allclose(embedding, hidden[:, -1], atol=0.02)
    vectors = bundle.catalogue_vectors.astype(np.float32)
    assert ((embedding @ vectors.T).argmax(1) == (hidden[:, -1].numpy() @ vectors.T).argmax(1)).mean() > 0.9


def test_a_damaged_checkpoint_is_refused(trained: tuple[TrainReport, list[Progress]], tmp_path: Path) -> None:
    files = {name: (trained[0].checkpoint / name).read_bytes() for name in (WEIGHTS, NOTES)}

    def with_file(name: str, content: bytes | None) -> Path:
        for each, original in {**files, name: content}.items():
            if original is not None:
                (tmp_path / each).write_bytes(original)
            else:
                (tmp_path / each).unlink(missing_ok=True)
        return tmp_path

    for name in files:
        with pytest.raises(BundleError, match="slipstream train"):
            load_checkpoint(with_file(name, None))
        with pytest.raises(BundleError, match="damaged"):
            load_checkpoint(with_file(name, files[name][: len(files[name]) // 2]))
    with pytest.raises(BundleError, match="items has shape"):
        load_checkpoint(with_file(NOTES, files[NOTES].replace(b'"rows": 512', b'"rows": 511')))
    with pytest.raises(BundleError, match="version 9"):
        load_checkpoint(with_file(NOTES, files[NOTES].replace(b'"version": 1', b'"version": 9')))
    with pytest.raises(BundleError, match="slipstream train"):
        export(tmp_path / "nothing", tmp_path / "bundle")
