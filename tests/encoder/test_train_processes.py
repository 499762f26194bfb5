"""Several processes, for real: on the CPU, over gloo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from encoder.checkpoint import NOTES, load_checkpoint
from encoder.train_record import read_metrics
from encoder.training import Progress, Stopped, train
from schemas.errors import ConfigError
from tests.encoder.trainings import CONFIG, circle_log

TWO = replace(CONFIG, devices=2, device="cpu", batch_tokens=256)


def test_two_processes_train_one_model(tmp_path: Path) -> None:
    seen: list[Progress] = []
    config = replace(TWO, max_steps=120, validation=0.1, validate_every_steps=40, patience=0)
    report = train(circle_log(), config, tmp_path, seen.append)
    assert report.steps == 120
    assert report.metrics["hr10"] > 0.8, report
    assert report.validated is not None
    assert seen[-1].step == 120
    assert [p.step for p in seen] == sorted({p.step for p in seen})
    assert [line["step"] for line in read_metrics(tmp_path) if line["of"] == "validation"] == [40, 80, 120]
    assert load_checkpoint(tmp_path).notes.training["config"]["devices"] == 2


def test_two_processes_are_stopped_and_resumed(tmp_path: Path) -> None:
    config = replace(TWO, max_steps=60, crossing_weight=0)
    stop, tell = stop_once_it_runs()
    with pytest.raises(Stopped) as raised:
        train(circle_log(), replace(config, max_steps=100_000), tmp_path / "long", tell, stop=stop)
    assert raised.value.step > 0
    assert not (tmp_path / "long" / NOTES).exists()
    with pytest.raises(ConfigError, match="max_steps is 60"):
        train(circle_log(), config, tmp_path / "long", resume=True)
    with pytest.raises(Stopped) as again:
        train(circle_log(), replace(config, max_steps=100_000), tmp_path / "long", resume=True, stop=lambda: True)
    assert again.value.step == raised.value.step


def test_an_error_of_people_comes_through(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="diverged"):
        train(circle_log(), replace(TWO, learning_rate=1e30, max_steps=40), tmp_path)


def test_devices_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CUDA devices asked for"):
        train(circle_log(), replace(CONFIG, device="cuda", devices=99), tmp_path)
    with pytest.raises(ConfigError, match="16-mixed is for GPUs"):
        train(circle_log(), replace(CONFIG, device="cpu", precision="16-mixed"), tmp_path)


def test_half_the_bits_learn_the_same(tmp_path: Path) -> None:
    report = train(circle_log(), replace(CONFIG, device="cpu", precision="bf16-mixed"), tmp_path)
    assert report.metrics["hr10"] > 0.9
    weights = load_checkpoint(tmp_path).weights
    assert all(value.dtype == np.float32 for value in weights.values())


def stop_once_it_runs() -> tuple[Callable[[], bool], Callable[[Progress], None]]:
    seen: list[Progress] = []
    return (lambda: len(seen) > 0), seen.append
