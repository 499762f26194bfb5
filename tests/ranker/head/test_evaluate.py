"""The metrics of rankers, on scores whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from encoder.evaluation.protocol import cutoff_ms, time_split
from ranker.head.evaluate import Measured, auc, figures
from tests.encoder.evaluation.logs import random_log


def test_auc_is_the_chance_that_a_true_one_is_above_a_false_one() -> None:
    rng = np.random.default_rng(0)
    scores, truth = rng.integers(0, 20, 200).astype(np.float32), rng.random(200) < 0.3
    above = scores[truth][:, None] - scores[~truth]
    assert auc(scores, truth) == pytest.approx(((above > 0) + 0.5 * (above == 0)).mean())
    assert auc(np.zeros(4, np.float32), np.array([True, False, True, False])) == 0.5


def test_figures_are_of_the_requests_that_got_the_action() -> None:
    log = random_log(events=200)
    split = time_split(log, cutoff_ms(log, 0.7))
    events = np.flatnonzero(~split.trained)
    saved = split.data.actions[events] == 4
    logits = np.tile(np.arange(6, 0, -1, dtype=np.float32), (len(events), 1))[..., None].repeat(2, 2)  # own item on top
    logits[saved, 0, 0] = 2.5  # below three others
    got = figures(split, Measured(events, np.zeros((len(events), 5), np.int64)), logits, [("save", 4), ("view", 1)])
    assert (got["hr3_save"], got["hr3_view"]) == (0.0, 1.0)
    assert got["auc_save_shown"] == 0.0
    logits[saved, 0, 0] = 3.0  # tied with the third
    got = figures(split, Measured(events, np.zeros((len(events), 5), np.int64)), logits, [("save", 4), ("hide", 6)])
    assert got["hr3_save"] == 1.0
    assert set(got) == {"auc_save", "auc_save_shown", "hr3_save"}, "nobody hid anything"
