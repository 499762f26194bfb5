"""The ablation of the ranker: what is withheld is withheld, and every row is trained as it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from encoder.evaluation.protocol import cutoff_ms
from encoder.training import TrainConfig
from ranker.head.config import RankerConfig
from schemas.bundle import ModelShape
from schemas.errors import LogError
from schemas.log import EventLog
from slipstream import ranker_ablation
from slipstream.ranker_ablation import NEW_ITEMS, ROWS, AblationConfig, _Seed, ablate_ranker, described
from tests.encoder.evaluation.logs import circle_log

SHAPE = ModelShape(layers=1, d_model=32, heads=2, kv_heads=1, context=24, keep=16, rows=512)
CONFIG = AblationConfig(
    ranker=RankerConfig(
        max_steps=2, max_seconds=None, batch_tokens=256, positions=4, sampled=4, width=16, eval_requests=60,
        eval_sampled=5, threads=1, device="cpu",
    ),
    pretrain=TrainConfig(shape=SHAPE, max_seconds=None, max_steps=3, threads=1, batch_tokens=512, device="cpu"),
    seeds=2, share=0.8, withheld=0.2, content_width=4,
)  # fmt: skip


@pytest.fixture
def log() -> EventLog:
    made = circle_log()
    made.records["action"] = np.random.default_rng(0).choice([1, 4, 6], len(made))
    return made


def test_withheld_items_are_not_before_t_and_their_content_is(log: EventLog, tmp_path: Path) -> None:
    at_ms = cutoff_ms(log, CONFIG.share)
    one = _Seed(log, at_ms, CONFIG, 3, tmp_path)
    withheld, split = one.withheld_ids(), one.split()
    assert len(withheld) == 12
    new = np.isin(split.data.item_ids, withheld)
    assert not new[split.data.items[split.trained]].any()
    assert new[split.data.items[~split.trained]].any()
    assert not np.isin(split.train_log.records["item_id"], withheld).any()
    before = log.records["item_id"][log.records["timestamp_ms"] < at_ms]
    content = one.content(split.data.item_ids)
    assert content.shape == (len(split.data.item_ids), 4)
    assert content.any(axis=1).tolist() == np.isin(split.data.item_ids, before).tolist()
    assert set(withheld) != set(_Seed(log, at_ms, CONFIG, 4, tmp_path).withheld_ids())


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_row_is_trained_with_every_seed(log: EventLog, jobs: int) -> None:
    rows = tuple(ROWS) if jobs == 1 else ("default", "no_token")
    said: list[str] = []
    outcome = ablate_ranker(log, replace(CONFIG, rows=rows, jobs=jobs), said.append)
    figures = outcome.figures
    runs = outcome.details["rows"]["default"]["runs"]
    assert [(run["seed"], run["steps"]) for run in runs] == [(0, 2), (1, 2)]
    assert figures["default_hr3_save"] == pytest.approx(np.mean([run["hr3_save"] for run in runs]))
    assert figures["default_hr3_save_spread"] == pytest.approx(np.std([run["hr3_save"] for run in runs], ddof=1))
    for row in rows:
        assert 0 <= float(figures[f"{row}_auc_save"] or 0) <= 1
    named = {name for name, row in NEW_ITEMS.items() if row in rows} | {"chance"}
    assert {f"new_items_hr3_save_{name}" for name in named} <= set(figures)
    assert figures["new_items_hr3_save_chance"] == 0.5
    assert len(said) == 2 + 2 * len(rows)


def test_rows_differ_by_what_they_say() -> None:
    made = {name: (replace(CONFIG.ranker, **row.changes), row.content) for name, row in ROWS.items()}
    assert made["default"] == (CONFIG.ranker, False)
    assert len({repr(config) for config in made.values()}) == len(ROWS)
    assert described(CONFIG)["withheld"] == 0.2


def test_nothing_saved_after_t_is_said(log: EventLog) -> None:
    log.records["action"][log.records["timestamp_ms"] >= cutoff_ms(log, CONFIG.share)] = 1
    with pytest.raises(LogError, match="nothing was saved"):
        ablate_ranker(log, replace(CONFIG, seeds=1, rows=("default",)), lambda _: None)


def test_new_items_compares_rows_that_exist() -> None:
    assert set(NEW_ITEMS.values()) <= set(ranker_ablation.ROWS)
