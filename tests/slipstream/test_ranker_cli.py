"""`slipstream train-ranker` and `evaluate-ranker` as a person meets them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from encoder.bundle import load_bundle
from encoder.evaluation.protocol import cutoff_ms, time_split
from ranker.head.config import RankerConfig
from ranker.head.serve import RankerModel
from schemas.errors import ConfigError
from slipstream.ranker_settings import ranker_config
from slipstream.ranker_training import tasks_of
from tests.encoder.evaluation.logs import circle_log
from tests.slipstream.conftest import Said
from tests.slipstream.test_cli import _slipstream

SMALL = """
preset = "nano"
max_steps = 3
threads = 1
batch_tokens = 256

[shape]
layers = 1
d_model = 32
context = 24
keep = 16
"""
STEPS = ("--max-steps", "2", "--set", "eval_requests=20", "--set", "batch_tokens=256", "--set", "threads=1")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    made, rng = circle_log(users=20, events=20), np.random.default_rng(0)
    rows = zip(made.user_index.tolist(), made.records["item_id"], made.records["timestamp_ms"], strict=True)
    file = tmp_path / "log.csv"
    lines = [f"u{user},{item},{rng.choice(['save', 'like', 'hide'])},home,{time}" for user, item, time in rows]
    file.write_text("\n".join(["user_id,item_id,action,surface,timestamp_ms", *lines]) + "\n")
    (tmp_path / "small.toml").write_text(SMALL)
    np.savez(tmp_path / "content.npz", ids=np.arange(0, 70, 7), vectors=np.ones((10, 3), np.float32))
    return file


def test_a_log_becomes_a_ranker_and_its_bundle(tmp_path: Path, typed: Callable[..., Said], log: Path) -> None:
    begun = typed("train", log.name, "--config", "small.toml", "--share", "0.8", "--no-export")
    assert begun.returncode == 0, begun.stderr
    done = _slipstream(tmp_path, "train-ranker", log.name, *STEPS, "--content", "content.npz", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["steps"] == 2
    assert {"hr3_save", "auc_hide", "auc_like_without_states"} <= set(made["metrics"])
    model = RankerModel(tmp_path / made["ranker"], load_bundle(tmp_path / made["bundle"]))
    assert model.tasks == ("save", "like", "hide")
    assert model.score(None, np.array([7, 14]), 0).shape == (2, 3)
    # What was trained together is a checkpoint like any other.
    again = typed("train-ranker", log.name, "--checkpoint", "var/ranker/checkpoint", *STEPS)
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--set", "learning_rat=1"], 2, "learning_rate"),
        ([], 4, "no checkpoint"),
    ],
)
def test_what_goes_wrong_is_said(
    typed: Callable[..., Said], log: Path, arguments: list[str], code: int, said: str
) -> None:
    done = typed("train-ranker", log.name, *arguments)
    assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (code, True, False), done.stderr


def test_what_needs_a_checkpoint_to_go_wrong(typed: Callable[..., Said], log: Path) -> None:
    begun = typed("train", log.name, "--config", "small.toml", "--no-export")
    assert begun.returncode == 0, begun.stderr
    whole = typed("train-ranker", log.name, *STEPS)
    assert (whole.returncode, "--share 0.9" in whole.stderr) == (2, True), whole.stderr


def test_a_row_that_is_none_is_said(typed: Callable[..., Said], log: Path) -> None:
    done = typed("evaluate-ranker", log.name, "--row", "middle")
    assert (done.returncode, "no_states" in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr


def test_settings_come_from_the_file_and_flags(tmp_path: Path) -> None:
    file = tmp_path / "ranker.toml"
    file.write_text('tasks = ["like"]\nage_dropout = [[3, 0.5]]\nwidth = 8\n')
    config = ranker_config(file, {"max_steps": 9, "seed": None}, ["width=16", "fusion=early"])
    assert (config.tasks, config.age_dropout, config.width) == (("like",), ((3.0, 0.5),), 16)
    assert (config.fusion, config.max_steps, config.max_seconds, config.seed) == ("early", 9, None, 0)


@pytest.mark.parametrize(
    ("flags", "assignments", "said"),
    [
        ({}, ["fusion=middle"], "fusion"),
        ({}, ["width=wide"], "width"),
        ({}, ["wdth=3"], "did you mean width"),
        ({"max_seconds": 0.0}, [], "max_seconds"),
    ],
)
def test_settings_that_are_wrong_are_named(flags: dict[str, object], assignments: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ranker_config(None, flags, assignments)


def test_a_log_without_any_of_the_tasks_is_refused() -> None:
    log = circle_log()  # of views
    split = time_split(log, cutoff_ms(log, 0.8))
    with pytest.raises(ConfigError, match=r"none of save, like, hide.*which has view"):
        tasks_of(RankerConfig(), split)
    assert tasks_of(RankerConfig(tasks=("save", "view")), split) == (("view", 1),)
