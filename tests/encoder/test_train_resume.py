"""A training that was stopped goes on as if it had not been."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from encoder.checkpoint import load_checkpoint
from encoder.train_config import TrainConfig
from encoder.train_record import read_metrics
from encoder.train_state import NOTES
from encoder.training import STATE, Stopped, train
from schemas.errors import ConfigError, ContractError
from tests.encoder.trainings import CONFIG, circle_log

SHORT = replace(CONFIG, max_steps=24, validation=0.1, validate_every_steps=5, checkpoint_every_s=0)


def stop_after(asked: int) -> Callable[[], bool]:
    """Yes from that question on; there is one before each step."""
    questions = iter(range(1 << 20))
    return lambda: next(questions) >= asked


def stopped(directory: Path, steps: int, config: TrainConfig = SHORT) -> int:
    with pytest.raises(Stopped) as raised:
        train(circle_log(), config, directory, resume=True, stop=stop_after(steps + 1))
    return raised.value.step


def test_the_same_weights_come_out(tmp_path: Path) -> None:
    whole = train(circle_log(), SHORT, tmp_path / "whole")
    first = stopped(tmp_path / "parts", 9)
    second = stopped(tmp_path / "parts", 8)
    assert 0 < first < second < 24
    assert list(json.loads((tmp_path / "parts" / STATE / NOTES).read_text())["config"]), "of the stopped training"
    parts = train(circle_log(), SHORT, tmp_path / "parts", resume=True)
    assert (parts.resumed_from, parts.steps) == (second, 24)
    a, b = load_checkpoint(tmp_path / "whole"), load_checkpoint(tmp_path / "parts")
    for name in a.weights:
        np.testing.assert_array_equal(a.weights[name], b.weights[name], err_msg=name)
    assert a.notes.metrics == b.notes.metrics
    assert whole.validated is not None
    assert parts.validated is not None
    assert whole.validated._replace(seconds=0) == parts.validated._replace(seconds=0)
    assert not (tmp_path / "parts" / STATE).exists(), "nothing is left to resume"


def test_the_record_goes_on(tmp_path: Path) -> None:
    step = stopped(tmp_path, 12)
    before = read_metrics(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(
            json.dumps(before[-1] | {"step": step + 5}) + '\n{"cut sh'
        )  # by a run that crashed after its last state
    train(circle_log(), SHORT, tmp_path, resume=True)
    after = read_metrics(tmp_path)
    assert after[: len(before)] == before
    measured = [line["step"] for line in after if line["of"] == "validation"]
    assert measured == [5, 10, 15, 20, 24]
    assert [line["seconds"] for line in after] == sorted(line["seconds"] for line in after)
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_states_are_written_on_the_way(tmp_path: Path) -> None:
    """A process that is killed leaves the newest."""
    config = replace(SHORT, checkpoint_every_s=1e-9)
    seen = []

    def look() -> bool:
        notes = tmp_path / STATE / NOTES
        if notes.exists():
            seen.append(json.loads(notes.read_text())["step"])
            assert len(list((tmp_path / STATE).glob("*.safetensors"))) == 1
        return False

    train(circle_log(), config, tmp_path, stop=look)
    assert seen == sorted(seen)
    assert len(set(seen)) > 5


def test_another_training_is_refused_by_name(tmp_path: Path) -> None:
    stopped(tmp_path, 5)
    other = replace(SHORT, learning_rate=0.5, multi_token=4, threads=2)
    with pytest.raises(
        ConfigError, match=r"learning_rate is 0\.5, there it is 0\.006; multi_token is 4, there it is 3\. Resume"
    ):
        train(circle_log(), other, tmp_path, resume=True)
    with pytest.raises(ConfigError, match="the log's fingerprint"):
        train(circle_log(seed=8), SHORT, tmp_path, resume=True)
    state = next((tmp_path / STATE).glob("*.safetensors"))
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(ContractError, match="damaged"):
        train(circle_log(), SHORT, tmp_path, resume=True)
    (tmp_path / STATE / NOTES).write_text("{")
    with pytest.raises(ContractError, match="not a training's state"):
        train(circle_log(), SHORT, tmp_path, resume=True)


def test_resuming_nothing_begins(tmp_path: Path) -> None:
    report = train(circle_log(), replace(SHORT, max_steps=3), tmp_path, resume=True)
    assert (report.resumed_from, report.steps) == (0, 3)
