"""A trained ranker on disk, loaded and asked: it scores states as they are served like torch scores the log."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from rich.console import Console

from encoder.bundle import Bundle, load_bundle
from encoder.evaluation.states import window_start
from encoder.providers import ProviderConfig
from encoder.runtime import Runtime, RuntimeConfig
from ranker.head.config import RankerConfig
from ranker.head.evaluate import choose, scores
from ranker.head.serve import RankerModel
from ranker.rows import Row, Status
from schemas.errors import BundleError, ConfigError, StateError
from schemas.sequence import RECORD
from schemas.state import State
from slipstream.ranker_training import make_requests, save_ranker, train_and_measure
from tests.bundles import random_bundle
from tests.ranker.conftest import Model
from tests.ranker.head.conftest import SAVE, Circle

#: Measured .02: slots are int8, tables fp16; probabilities of a small ranker are far apart.
SERVED = 0.08
CONFIG = RankerConfig(
    max_steps=15, max_seconds=None, batch_tokens=256, positions=8, sampled=4, width=16, threads=1, eval_requests=40,
    eval_sampled=6, warmup_steps=5, learning_rate=0.01, device="cpu",
)  # fmt: skip
WIDTH = 3


class Served(NamedTuple):
    circle: Circle
    directory: Path
    bundle: Bundle
    content: np.ndarray
    logits: np.ndarray
    events: np.ndarray
    sampled: np.ndarray


@pytest.fixture(scope="module")
def served(circle: Circle, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A ranker with content, written; and what torch says of requests."""
    directory = tmp_path_factory.mktemp("serve")
    content = np.random.default_rng(0).standard_normal((len(circle.split.data.item_ids), WIDTH)).astype(np.float32)
    ranker, tasks, made = train_and_measure(circle.split, circle.checkpoint, CONFIG, content, Console(quiet=True))
    assert {"hr3_save", "hr3_save_without_states", "auc_save"} <= set(made["metrics"])
    written = save_ranker(
        directory / "ranker", ranker, circle.split, circle.checkpoint, CONFIG, tasks, made, directory, None
    )
    requests = make_requests(circle.split, circle.checkpoint, tasks, content)
    chosen = choose(circle.split, requests, 40, 6, 0)
    logits = scores(ranker, requests, chosen)
    bundle = load_bundle(written["bundle"])
    assert bundle.model_id == written["model_id"]
    return Served(circle, directory / "ranker", bundle, content, logits, chosen.events, chosen.sampled)


def state_of(served: Served, event: int) -> State:
    """The state that the encoder makes of the window before an event."""
    data, shape = served.circle.split.data, served.bundle.shape
    first = data.starts[data.owners[event]]
    start = first + window_start(event - first, shape)
    records = np.zeros(event - start, RECORD)
    records["timestamp_ms"], records["item_id"] = (
        data.timestamps_ms[start:event],
        data.item_ids[data.items[start:event]],
    )
    records["action"], records["surface"] = data.actions[start:event], data.surfaces[start:event]
    return Model(served.bundle, Runtime(served.bundle, RuntimeConfig(graphs=("encode",)))).state_of(records)


def test_a_served_state_is_scored_as_in_training(served: Served) -> None:
    model, data = RankerModel(served.directory, served.bundle), served.circle.split.data
    assert model.tasks == (SAVE[0],)
    differences = []
    for index in range(0, 40, 7):
        event = int(served.events[index])
        items = np.append(data.items[event], served.sampled[index])
        got = model.score(
            state_of(served, event), data.item_ids[items], int(data.timestamps_ms[event]), served.content[items]
        )
        want = 1 / (1 + np.exp(-served.logits[index]))
        assert got.shape == want.shape == (7, 1)
        differences.append(np.abs(got - want).max())
    print(max(differences))
    assert max(differences) < SERVED
    assert np.ptp(served.logits) > 1, "candidates differ by more than the tolerance"


def test_users_without_a_state_and_unknown_items_are_scored(served: Served) -> None:
    model = RankerModel(served.directory, served.bundle)
    missing = Row("user", Status.NOT_FOUND)
    for user in (None, missing):
        got = model.score(user, np.array([7, 1 << 60]), 1_000_000)
        assert got.shape == (2, 1)
        assert ((got > 0) & (got < 1)).all()
    assert model.score(None, np.empty(0, np.int64), 0).shape == (0, 1)


def test_what_it_is_asked_wrongly_is_said(served: Served) -> None:
    model = RankerModel(served.directory, served.bundle)
    state = state_of(served, int(served.events[0]))
    other = state._replace(header=state.header._replace(model_id="0" * 16))
    with pytest.raises(StateError, match="0000"):
        model.score(other, np.array([7]), 0)
    with pytest.raises(ConfigError, match="hash string ids"):
        model.score(state, np.array(["a"]), 0)
    for content in (np.zeros((1, WIDTH + 1), np.float32), np.full((1, WIDTH), np.nan, np.float32)):
        with pytest.raises(ConfigError, match="content"):
            model.score(state, np.array([7]), 0, content)


def test_a_ranker_of_another_model_is_refused(served: Served, tmp_path: Path) -> None:
    other = random_bundle(tmp_path / "other", served.bundle.shape)
    with pytest.raises(BundleError, match=f"{served.bundle.model_id}.*{other.model_id}"):
        RankerModel(served.directory, other)


def test_tensorrt_is_refused(served: Served) -> None:
    with pytest.raises(ConfigError, match="tensorrt"):
        RankerModel(served.directory, served.bundle, ProviderConfig(("tensorrt", "cpu")))


@pytest.mark.parametrize("file", ["ranker.json", "ranker.onnx", "catalogue.npz"])
def test_a_damaged_or_missing_file_is_named(served: Served, tmp_path: Path, file: str) -> None:
    directory = tmp_path / "ranker"
    shutil.copytree(served.directory, directory)
    content = (directory / file).read_bytes()
    (directory / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError, match="ranker"):
        RankerModel(directory, served.bundle)
    (directory / file).unlink()
    with pytest.raises(BundleError, match=file):
        RankerModel(directory, served.bundle)


def test_what_serves_needs_no_torch() -> None:
    code = "import sys, ranker.head.serve; sys.exit('torch' in sys.modules or 'safetensors' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_ranker_of_another_version_is_refused(served: Served, tmp_path: Path) -> None:
    shutil.copytree(served.directory, tmp_path / "ranker")
    notes = tmp_path / "ranker" / "ranker.json"
    notes.write_bytes(notes.read_bytes().replace(b'"version": 1', b'"version": 9'))
    with pytest.raises(BundleError, match=r"version 9.*reads version 1"):
        RankerModel(tmp_path / "ranker", served.bundle)
