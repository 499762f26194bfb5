from __future__ import annotations

import numpy as np
import pytest

from encoder.evaluation import baselines
from encoder.evaluation.baselines import CountsConfig, count_transitions, counts_scorer, fit_counts, popularity
from encoder.evaluation.protocol import last_split, time_split
from encoder.evaluation.ranking import rank_all
from encoder.evaluation.sasrec import Sasrec, SasrecConfig, left_padded, train_sasrec
from schemas.errors import LogError
from tests.encoder.evaluation.logs import circle_log, in_order, random_log


def test_popularity_counts_training_events() -> None:
    log = random_log()
    split = time_split(log, int(log.records["timestamp_ms"][80]))
    got = popularity(split)(np.arange(3))
    expected = [np.count_nonzero(log.records["item_id"][:80] == item) for item in split.data.item_ids]
    np.testing.assert_array_equal(got, [expected] * 3)


@pytest.mark.parametrize("dense_items", [0, 100])
def test_counts_by_hand(monkeypatch: pytest.MonkeyPatch, dense_items: int) -> None:
    monkeypatch.setattr(baselines, "DENSE_ITEMS", dense_items)
    log = random_log(events=90)
    split = time_split(log, int(log.records["timestamp_ms"][60]))
    config = CountsConfig(reach=3, items=4, decay=0.5, row_power=0.5, column_power=0.25)
    scorer = counts_scorer(split.data, split.targets, count_transitions(split.data, split.trained, 3), config)
    m = len(split.data.item_ids)
    table, popular = np.zeros((m, m)), np.zeros(m)
    place = {int(item): i for i, item in enumerate(split.data.item_ids)}
    for history in in_order(split.train_log):
        items = [place[item] for _, item in history]
        for i, a in enumerate(items):
            popular[a] += 1
            for distance in (1, 2, 3):
                if i + distance < len(items):
                    table[a, items[i + distance]] += 1 / distance
    expected = np.zeros((len(split.targets), m))
    for row, (event, start) in enumerate(zip(split.targets.event, split.targets.start, strict=True)):
        for age in range(min(4, event - start)):
            votes = table[split.data.items[event - 1 - age]]
            if votes.any():
                expected[row] += 0.5**age * votes / votes.sum() ** 0.5
    expected /= np.maximum(popular, 1) ** 0.25
    np.testing.assert_allclose(scorer(np.arange(len(split.targets))), expected, rtol=1e-5, atol=1e-7)


def test_counts_know_a_circle() -> None:
    log = circle_log()
    for split in (last_split(log), time_split(log, int(log.records["timestamp_ms"][-400]))):
        scorer, config = fit_counts(split)
        ranks = rank_all(split.data, split.targets, {"counts": scorer})["counts"]
        assert (ranks.unseen == 0).mean() > 0.9, (split.protocol, config)


def test_counts_of_a_log_too_short_to_choose_from() -> None:
    log = random_log(users=2, events=4)
    log.user_index[:] = [0, 0, 1, 1]
    _, config = fit_counts(last_split(log))
    assert config == CountsConfig()


# ---- SASRec


def test_sequences_are_padded_on_the_left() -> None:
    data = last_split(circle_log(users=3, events=5)).data
    got = left_padded(data, np.array([3, 10]), np.array([3, 2]), 4)
    assert got.tolist() == [[len(data.item_ids), *data.items[:3]], [len(data.item_ids)] * 2 + data.items[8:10].tolist()]


def test_sasrec_sees_no_future_and_no_padding() -> None:
    import torch

    model = Sasrec(9, SasrecConfig(width=16, length=6)).eval()
    whole = torch.tensor([[1, 2, 3, 4, 5]])
    other = torch.tensor([[1, 2, 3, 8, 8]])
    padded = torch.tensor([[9, 1, 2, 3, 4, 5]])
    with torch.no_grad():
        assert torch.allclose(model(whole)[:, :3], model(other)[:, :3], atol=1e-6)
        assert torch.allclose(model(whole), model(padded)[:, 1:], atol=1e-5)
        assert not torch.allclose(model(whole)[:, 3:], model(other)[:, 3:], atol=1e-3)


def test_sasrec_learns_a_circle() -> None:
    log = circle_log()
    split = time_split(log, int(log.records["timestamp_ms"][-400]))
    shares: list[float] = []
    config = SasrecConfig(max_seconds=600, max_steps=250, width=32, layers=1, length=20, learning_rate=5e-3)
    scorer, steps = train_sasrec(split, config, lambda share, loss: shares.append(share))
    assert steps == 250
    ranks = rank_all(split.data, split.targets, {"sasrec": scorer})["sasrec"]
    print((ranks.unseen < 10).mean())
    assert (ranks.unseen < 10).mean() > 0.8


def test_sasrec_needs_two_events() -> None:
    log = random_log(users=2, events=4)
    log.user_index[:] = [0, 0, 1, 1]
    with pytest.raises(LogError, match="nothing for SASRec"):
        train_sasrec(last_split(log), SasrecConfig())
