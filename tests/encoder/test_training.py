from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from encoder.checkpoint import NOTES, load_checkpoint
from encoder.runtime import Runtime
from encoder.train_config import NOT_TARGETS
from encoder.training import Progress, TrainReport, train
from schemas.errors import ConfigError, LogError
from schemas.log import EventLog
from schemas.vocabulary import Vocabulary
from tests.encoder.trainings import CONFIG, ITEMS, circle_log, exported


def test_a_model_learns_what_can_be_learned(trained: tuple[TrainReport, list[Progress]]) -> None:
    report, _ = trained
    print(report)
    assert report.steps == 150
    assert (report.users, report.items, report.events) == (40, ITEMS, 1440)
    assert report.metrics["targets"] == 160
    assert report.metrics["hr10"] > 0.9
    assert report.metrics["popularity_hr10"] < 0.6
    assert report.loss < 3


@torch.no_grad()
def test_crossing_scores_mean_something(trained: tuple[TrainReport, list[Progress]]) -> None:
    """Through the exported graphs: the true next item scores above a random one."""
    bundle = exported(trained[0])
    runtime, log = Runtime(bundle), circle_log(seed=9)
    right = 0
    for user in range(40):
        records = log.records[log.user_index == user]
        slots = runtime.encode(bundle.features.window_tokens(records[:12])[None], np.array([11]))
        true = records["item_id"][12]
        others = 7 * ((true // 7 + np.arange(15, 45, 3)) % ITEMS)
        candidates = bundle.features.candidates(np.append(true, others))[None]
        score = runtime.cross(candidates, slots.kv, slots.scales, np.array([12])).score[0]
        right += int((score[0] > score[1:]).sum())
    print(f"{right / 400:.1%} of the pairs are ordered right")
    assert right > 0.75 * 400


def test_progress_tells_the_way_to_the_end(trained: tuple[TrainReport, list[Progress]]) -> None:
    _, seen = trained
    assert seen[-1].step == 150
    assert seen[-1].share == 1
    assert seen[-1].remaining_s == 0
    assert [p.step for p in seen] == sorted({p.step for p in seen})
    assert all(0 < p.share <= 1 and np.isfinite(p[2:]).all() for p in seen)


def test_a_training_can_be_repeated(tmp_path: Path) -> None:
    config = replace(CONFIG, max_steps=5)
    weights = []
    for number, seed in enumerate((0, 0, 1)):
        train(circle_log(), replace(config, seed=seed), tmp_path / str(number))
        weights.append(load_checkpoint(tmp_path / str(number)).weights)
    for name in weights[0]:
        np.testing.assert_array_equal(weights[0][name], weights[1][name])
    assert (weights[0]["items"] != weights[2]["items"]).any()


def test_what_is_held_out_is_not_trained_on(tmp_path: Path) -> None:
    log = circle_log()
    config = replace(CONFIG, max_steps=3)
    train(log, config, tmp_path / "a")
    other = log.records.copy()
    other["item_id"][-160:] = other["item_id"][-160:][::-1]
    train(EventLog(log.users, log.user_index, other, log.vocabulary), config, tmp_path / "b")
    a, b = load_checkpoint(tmp_path / "a"), load_checkpoint(tmp_path / "b")
    for name in a.weights:
        np.testing.assert_array_equal(a.weights[name], b.weights[name])
    assert a.notes.metrics != b.notes.metrics


def test_torch_is_left_as_it_was_found(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    train(circle_log(), replace(CONFIG, max_steps=12, threads=None), tmp_path / "checkpoint")
    assert torch.get_num_threads() == before


def test_all_of_a_log_can_be_trained_on(tmp_path: Path) -> None:
    report = train(circle_log(), replace(CONFIG, max_steps=2, held_out=0, crossing_weight=0), tmp_path / "checkpoint")
    assert (report.events, report.metrics, report.crossing_loss) == (1600, {}, 0)


@pytest.mark.parametrize("time_gaps", [True, False])
def test_gaps_that_are_switched_off_are_zeros(tmp_path: Path, time_gaps: bool) -> None:
    """So that validation and serving, which look them up, see what training saw."""
    train(circle_log(), replace(CONFIG, max_steps=3, time_gaps=time_gaps), tmp_path / "checkpoint")
    assert load_checkpoint(tmp_path / "checkpoint").weights["gaps"].any() == time_gaps


def test_excluded_actions_are_no_targets(tmp_path: Path) -> None:
    report = train(circle_log(), replace(CONFIG, max_steps=2, not_targets=("hide", "save")), tmp_path / "checkpoint")
    assert 0 < report.metrics["targets"] < 160


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_steps": None}, "never ends"),
        ({"learning_rate": 0}, "learning_rate: 0"),
        ({"batch_tokens": 0, "held_out": 1.0}, r"batch_tokens: 0 .*held_out: 1\.0"),
    ],
)
def test_a_wrong_configuration_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **change)  # type: ignore[arg-type]


def test_a_log_without_the_action_that_is_no_target_by_default(tmp_path: Path) -> None:
    log, actions = circle_log(), ("other", "seen", "cart", "gift", "bought")
    own = EventLog(log.users, log.user_index, log.records, Vocabulary(actions))
    assert train(own, replace(CONFIG, max_steps=2, not_targets=NOT_TARGETS), tmp_path / "checkpoint").steps == 2


def test_a_training_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\['purchase'\] are no actions"):
        train(circle_log(), replace(CONFIG, not_targets=("purchase",)), tmp_path / "checkpoint")
    with pytest.raises(ConfigError, match="nothing to foresee"):
        train(circle_log(), replace(CONFIG, not_targets=Vocabulary().actions), tmp_path / "checkpoint")
    with pytest.raises(LogError, match="two events"):
        train(circle_log(events=1), CONFIG, tmp_path / "checkpoint")
    with pytest.raises(LogError, match="two events"):
        train(circle_log()[:0], CONFIG, tmp_path / "checkpoint")
    with pytest.raises(ConfigError, match="diverged"):
        train(circle_log(), replace(CONFIG, learning_rate=1e30, max_steps=20), tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint" / NOTES).exists()
