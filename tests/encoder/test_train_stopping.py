"""The validation window: what is kept, when a training ends, and that it sees nothing later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from encoder.checkpoint import load_checkpoint
from encoder.train_record import read_metrics
from encoder.training import train
from schemas.log import EventLog
from tests.encoder.trainings import CONFIG, circle_log


def test_a_training_that_gets_no_better_ends_and_keeps_its_best(tmp_path: Path) -> None:
    # Nothing moves: the first measurement is the best.
    config = replace(
        CONFIG,
        max_steps=500,
        learning_rate=1e-30,
        matrix_learning_rate=1e-30,
        validation=0.1,
        validate_every_steps=2,
        patience=3,
    )
    report = train(circle_log(), config, tmp_path)
    assert report.steps == 8
    assert report.validated is not None
    assert report.validated.step == 2
    assert report.validated.targets > 0
    assert [line["step"] for line in read_metrics(tmp_path) if line["of"] == "validation"] == [2, 4, 6, 8]


def test_the_best_is_kept_though_the_training_goes_on(tmp_path: Path) -> None:
    """A training that loses what it learned: its checkpoint is that of the same training, ended at its best."""
    config = replace(CONFIG, max_steps=60, validation=0.1, validate_every_steps=10, patience=0)
    report = train(circle_log(), config, tmp_path / "good")
    assert report.validated is not None
    assert report.steps == 60
    measured = [line for line in read_metrics(tmp_path / "good") if line["of"] == "validation"]
    best = max(measured, key=lambda line: line["ndcg10"])
    assert (best["step"], best["ndcg10"]) == (report.validated.step, report.validated.ndcg10)
    assert measured[0]["ndcg10"] < best["ndcg10"], "it learned"
    assert load_checkpoint(tmp_path / "good").notes.training["validated"]["step"] == best["step"]


def test_validation_never_sees_what_is_held_out_and_training_neither(tmp_path: Path) -> None:
    log = circle_log()
    config = replace(CONFIG, max_steps=8, held_out=0.1, validation=0.1, validate_every_steps=4)
    report = train(log, config, tmp_path / "a")
    assert report.events == 1280

    def changed(events: slice) -> EventLog:
        records = log.records.copy()
        records["item_id"][events] = 10_000 + records["item_id"][events][::-1]  # new items, too
        return EventLog(log.users, log.user_index, records, log.vocabulary)

    other_test = train(changed(slice(-160, None)), config, tmp_path / "b")
    other_window = train(changed(slice(-320, -160)), config, tmp_path / "c")
    a, b, c = (load_checkpoint(tmp_path / name) for name in "abc")
    assert report.validated is not None
    assert other_test.validated is not None
    assert other_window.validated is not None
    assert report.validated._replace(seconds=0) == other_test.validated._replace(seconds=0)
    assert report.validated.hr10 != other_window.validated.hr10
    assert report.metrics != other_test.metrics
    for name in a.weights:
        np.testing.assert_array_equal(a.weights[name], b.weights[name])
    if report.validated.step == other_window.validated.step:  # what was kept is the same step
        for name in a.weights:
            np.testing.assert_array_equal(a.weights[name], c.weights[name])
