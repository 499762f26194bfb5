from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from encoder.checkpoint import load_checkpoint
from encoder.evaluation.protocol import cutoff_ms, time_split
from encoder.evaluation.ranking import rank_all
from encoder.evaluation.states import Embedder
from encoder.model import PinFM
from encoder.training import TrainConfig, train
from schemas.bundle import ModelShape
from schemas.errors import ConfigError
from slipstream.evaluation import served
from slipstream.evaluation.run import EvaluateConfig, described, run
from slipstream.evaluation.served import serve
from tests.encoder.evaluation.logs import circle_log

SHAPE = ModelShape(layers=1, d_model=32, heads=2, kv_heads=1, context=24, keep=16, rows=512)
TRAIN = TrainConfig(shape=SHAPE, max_seconds=None, max_steps=120, threads=1, warmup_steps=10, batch_tokens=512)
CONFIG = EvaluateConfig("circle", share=0.8, train=TRAIN, served_users=10)
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on the first 80% of the circle."""
    directory = tmp_path_factory.mktemp("evaluate") / "checkpoint"
    log = circle_log()
    train(time_split(log, cutoff_ms(log, 0.8)).train_log, replace(TRAIN, held_out=0.0), directory)
    return directory


def test_a_model_is_trained_and_measured_beside_the_baselines() -> None:
    outcome = run(circle_log(), replace(CONFIG, freshness=True, freshness_ms=(30_000,)), QUIET)
    figures, details = outcome.figures, outcome.details
    print(figures)
    assert figures["hr10_time"] > 0.8  # type: ignore[operator]
    assert figures["counts_hr10_time"] > 0.8  # type: ignore[operator]
    assert figures["popularity_hr10_time"] < 0.6  # type: ignore[operator]
    assert abs(figures["served_minus_offline"]) < 0.05  # type: ignore[operator,arg-type]
    assert details["split"]["targets"] == 320
    assert details["split"]["train_events"] == details["models"][0]["training"]["events"] == 1280
    line = details["freshness"]["all"]
    by_name = {point["at"]: point["hr10"] for point in line["points"]}
    assert by_name["events_0"] == pytest.approx(figures["hr10_time"], abs=1e-5)
    assert by_name["seconds_1"] == by_name["events_0"], "events are a minute apart"
    assert by_name["seconds_60"] == by_name["events_0"]
    assert by_name["frozen"] < by_name["events_0"]
    assert details["freshness_marks"][0]["hr10"] == figures["hr10_at_freshness"]
    assert described(CONFIG)["train"]["shape"]["layers"] == 1


def test_leave_last_out_with_two_seeds() -> None:
    config = replace(CONFIG, protocol="last", seeds=2, served_users=0, train=replace(TRAIN, max_steps=30))
    outcome = run(circle_log(), config, QUIET)
    models = [model["seen_excluded"]["all"]["hr10"][0] for model in outcome.details["models"]]
    assert outcome.figures["hr10_last"] == pytest.approx(np.mean(models), abs=1e-5)
    assert outcome.figures["hr10_last_spread"] == pytest.approx(np.std(models, ddof=1), abs=1e-5)
    assert outcome.details["split"]["targets"] == 40
    assert "served_minus_offline" not in outcome.figures


def test_baselines_alone_of_ml_100k_have_its_name() -> None:
    outcome = run(circle_log(), replace(CONFIG, source="ml-100k", train=None, sasrec_seconds=0.5), QUIET)
    assert {"counts_hr10_time_100k", "popularity_mrr_time_100k", "sasrec_ndcg10_time_100k"} <= set(outcome.figures)
    assert "hr10_time_100k" not in outcome.figures
    assert outcome.details["models"] == []


def test_a_checkpoint_is_measured_after_its_own_training(checkpoint: Path) -> None:
    log = circle_log()
    outcome = run(log, replace(CONFIG, train=None, checkpoint=checkpoint, share=0.5, served_users=0), QUIET)
    assert outcome.details["split"]["train_events"] == 1280, "T is the checkpoint's, not the share's"
    notes = load_checkpoint(checkpoint).notes
    model = PinFM(notes.shape, notes.vocabulary)
    model.load_weights(load_checkpoint(checkpoint).weights)
    split = time_split(log, cutoff_ms(log, 0.8))
    embedder = Embedder(model, split.data, notes.item_seeds)
    states = embedder.embeddings(split.targets.start, split.targets.before)
    ranks = rank_all(split.data, split.targets, {"x": lambda rows: (states[rows] @ embedder.vectors.T).numpy()})["x"]
    assert outcome.figures["hr10_time"] == pytest.approx((ranks.unseen < 10).mean())


def test_a_checkpoint_that_has_seen_the_targets_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    log = circle_log()
    whole = tmp_path / "whole"
    train(log, replace(TRAIN, max_steps=2, held_out=0.0), whole)
    for protocol in ("time", "last"):
        config = replace(CONFIG, train=None, checkpoint=whole, protocol=protocol)
        with pytest.raises(ConfigError, match=r"foresee|seen the targets"):
            run(log, config, QUIET)


def test_served_states_rank_as_the_model_does(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a way that loses an event on the way is noticed."""
    log = circle_log()
    split = time_split(log, cutoff_ms(log, 0.8))
    saved = load_checkpoint(checkpoint)
    model = PinFM(saved.notes.shape, saved.notes.vocabulary)
    model.load_weights(saved.weights)
    embedder = Embedder(model, split.data, saved.notes.item_seeds)
    states = embedder.embeddings(split.targets.start, split.targets.before)
    offline = rank_all(split.data, split.targets, {"x": lambda rows: (states[rows] @ embedder.vectors.T).numpy()})["x"]
    result = serve(split, log, saved, offline, users=12, seed=1)
    assert (result.users, len(result.rows)) == (12, 12 * 8)
    assert len(set(split.targets.user[result.rows].tolist())) == 12
    print(result.minus_offline, result.same_rank)
    assert abs(result.minus_offline) < 0.03
    assert result.same_rank > 0.8
    real, calls = served.messages, iter(range(1000))
    monkeypatch.setattr(served, "messages", lambda chunk: real(chunk) if next(calls) % 3 != 1 else [])
    lossy = serve(split, log, saved, offline, users=12, seed=1)
    assert (lossy.ranks.all != lossy.offline.all).mean() > 0.2, "seen items excluded, the next one is found even so"
