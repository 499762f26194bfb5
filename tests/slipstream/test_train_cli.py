"""`slipstream train` as a person meets it: a process that is stopped, resumed, and leaves a card."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.slipstream.conftest import Said

ROOT = Path(__file__).parents[2]
SETTINGS = """
max_steps = 40
validation = 0.1
validate_every_steps = 10
threads = 1
device = "cpu"
batch_tokens = 128

[shape]
layers = 1
d_model = 32
context = 24
keep = 16
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = [
        f"{user},{rng.integers(0, 50)},view,home,{1_000_000_000_000 + 1000 * i}"
        for i in range(40)
        for user in range(20)
    ]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,action,surface,timestamp_ms", *rows]) + "\n")
    (tmp_path / "train.toml").write_text(SETTINGS)
    return tmp_path


TRAIN = ("train", "log.csv", "--config", "train.toml", "--json")


def test_a_log_becomes_a_bundle_with_a_card(directory: Path, typed: Callable[..., Said]) -> None:
    done = typed(*TRAIN)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["steps"] == 40
    assert made["validated"]["step"] in (10, 20, 30, 40)
    checkpoint = directory / "var" / "checkpoint"
    card = (checkpoint / "card.md").read_text()
    for said in (
        "log.csv",
        "events | 800 of 20 users with 50 items",
        f"{made['metrics']['hr10']:.4f} ±",
        "| max_steps | 40 |",
    ):
        assert said in card
    assert "| averaging | 0.998 |" in card, "defaults are told, too"
    assert "<svg" in (checkpoint / "curves.svg").read_text()
    assert Path(directory, made["bundle"], "manifest.json").exists()


def test_a_log_on_disk_is_read_once_and_again_when_it_changed(directory: Path, typed: Callable[..., Said]) -> None:
    arguments = (*TRAIN, "--on-disk", "columns", "--no-export", "--max-steps", "3")
    first, again = typed(*arguments), typed(*arguments)
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert ("writing" in first.stderr, "writing" in again.stderr) == (True, False)
    one, two = json.loads(first.stdout), json.loads(again.stdout)
    assert (one["events"], one["metrics"]) == (two["events"], two["metrics"])
    with (directory / "log.csv").open("a") as log:
        log.write("new,1,view,home,1000000090000\n")
    assert "writing" in typed(*arguments).stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_training_is_resumed(directory: Path, typed: Callable[..., Said], number: signal.Signals) -> None:
    endless = (*TRAIN, "--max-steps", "1000000", "--no-export")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SLIPSTREAM_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "slipstream", *endless],
        cwd=directory,
        env={**clean, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = directory / "var" / "checkpoint" / "metrics.jsonl"
        deadline = time.monotonic() + 100
        while not (lines.exists() and lines.stat().st_size):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, "--resume goes on" in said) == (130, True), said
    assert "Traceback" not in said
    refused = typed(*endless)
    assert (refused.returncode, "--resume" in refused.stderr) == (2, True), refused.stderr
    refused = typed(*TRAIN, "--resume")
    assert (refused.returncode, "max_steps is 40, there it is 1000000" in refused.stderr) == (2, True), refused.stderr
