"""From a log to a bundle that lies where workers look for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from encoder.bundle import load_bundle
from encoder.training import TrainConfig
from schemas.errors import BundleError
from schemas.log import EventLog
from schemas.sequence import RECORD
from schemas.vocabulary import Vocabulary
from slipstream.training import export_to, train_with_progress


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("train") / "checkpoint"
    rng = np.random.default_rng(0)
    records = np.zeros(400, RECORD)
    records["timestamp_ms"] = np.arange(400) + 1
    records["item_id"] = rng.integers(1, 30, 400)
    records["action"] = 1
    log = EventLog([f"u{i}" for i in range(8)], rng.integers(0, 8, 400).astype(np.int32), records, Vocabulary())
    made = train_with_progress(
        log, TrainConfig(max_seconds=None, max_steps=3, threads=1), directory, Console(quiet=True)
    )
    assert made["steps"] == 3
    return directory


def test_each_model_has_a_directory_and_the_latest_a_link(checkpoint: Path, tmp_path: Path) -> None:
    manifest, directory = export_to(checkpoint, tmp_path, None)
    assert directory == tmp_path / "models" / manifest.model_id
    again, same = export_to(checkpoint, tmp_path, None)
    assert (again.model_id, same) == (manifest.model_id, directory)
    assert load_bundle(tmp_path / "model").model_id == manifest.model_id
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == [manifest.model_id]


def test_a_named_bundle_lies_where_it_was_asked_for(checkpoint: Path, tmp_path: Path) -> None:
    manifest, directory = export_to(checkpoint, tmp_path / "data", tmp_path / "mine")
    assert (directory, load_bundle(tmp_path / "mine").model_id) == (tmp_path / "mine", manifest.model_id)
    assert not (tmp_path / "data").exists()


def test_what_is_not_our_link_is_left_alone(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(BundleError, match="not a link"):
        export_to(checkpoint, tmp_path, None)
