"""The ablation on a log that can be learned: every row is trained as it says, and measured."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from slipstream.evaluation import ablation
from slipstream.evaluation.run import run
from tests.encoder.evaluation.logs import circle_log
from tests.slipstream.evaluation.test_run import CONFIG, TRAIN


def test_rows_differ_by_what_they_say() -> None:
    for name, changes in ablation.ROWS.items():
        changed = ablation._changed(TRAIN, changes)
        assert (changed == TRAIN) == (name == "default")
    assert ablation._changed(TRAIN, ablation.ROWS["as many kv heads as heads"]).shape.kv_heads == TRAIN.shape.heads


def test_every_row_is_trained_with_every_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "ROWS", {"default": {}, "no dropout": {"dropout": 0.0, "block_dropout": 0.0}})
    config = replace(CONFIG, ablation=True, seeds=2, train=replace(TRAIN, max_steps=60))
    outcome = run(circle_log(), config, Console(quiet=True))
    assert set(outcome.figures) == {
        f"{row}_{metric}{spread}"
        for row in ("default", "no_dropout") for metric in ("hr10", "ndcg10") for spread in ("", "_spread")
    }  # fmt: skip
    runs = outcome.details["ablation"]["default"]["runs"]
    assert [(made["seed"], made["steps"]) for made in runs] == [(0, 60), (1, 60)]
    assert outcome.figures["default_hr10"] == pytest.approx((runs[0]["hr10"] + runs[1]["hr10"]) / 2)
    assert outcome.figures["default_hr10"] > 0.3  # type: ignore[operator]
