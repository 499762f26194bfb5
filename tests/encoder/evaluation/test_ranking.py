from __future__ import annotations

import numpy as np
import pytest

from encoder.evaluation import ranking
from encoder.evaluation.metrics import METRICS, interval, measure, per_target
from encoder.evaluation.protocol import last_split, time_split
from encoder.evaluation.ranking import Rows, ragged, rank_all
from schemas.errors import ContractError
from tests.encoder.evaluation.logs import random_log


@pytest.mark.parametrize("batch_bytes", [1, 400, 1 << 20])
def test_ranks_against_one_target_at_a_time(monkeypatch: pytest.MonkeyPatch, batch_bytes: int) -> None:
    """Scores of few values, so that most are tied; users meet items again."""
    monkeypatch.setattr(ranking, "_BATCH_BYTES", batch_bytes)
    log = random_log(items=15)
    split = time_split(log, int(log.records["timestamp_ms"][40]))
    data, targets = split.data, split.targets
    n, m = len(targets), len(data.item_ids)
    scores = np.random.default_rng(1).integers(0, 4, (n, m)).astype(np.float32)
    got = rank_all(data, targets, {"a": lambda rows: scores[rows], "b": lambda rows: -scores[rows]}, seed=5)
    tie_order = np.random.default_rng(5).permutation(m)
    for name, sign in (("a", 1), ("b", -1)):
        for row in range(n):
            event, start = targets.event[row], targets.start[row]
            truth, seen = data.items[event], set(data.items[start:event].tolist())
            keys = [(-sign * scores[row, i], tie_order[i]) for i in range(m)]
            above = [i for i in range(m) if keys[i] < keys[truth]]
            assert got[name].all[row] == len(above)
            assert got[name].unseen[row] == len([i for i in above if i not in seen])


def test_who_knows_nothing_gets_what_chance_gets() -> None:
    """Neither the order of ids nor that of the file helps a scorer without an opinion."""
    log = random_log(users=200, items=50, events=4000)
    split = last_split(log)
    ranks = rank_all(split.data, split.targets, {"flat": lambda rows: np.zeros((len(rows), 50), np.float32)})["flat"]
    assert abs((ranks.all < 10).mean() - 0.2) < 0.1


def test_scores_that_are_no_numbers_are_refused() -> None:
    split = last_split(random_log())

    def broken(rows: Rows) -> np.ndarray:
        return np.full((len(rows), len(split.data.item_ids)), np.nan)

    with pytest.raises(ContractError, match=r"broken: .*no finite numbers"):
        rank_all(split.data, split.targets, {"broken": broken})


def test_ragged() -> None:
    row, place = ragged(np.array([2, 0, 3]))
    assert row.tolist() == [0, 0, 2, 2, 2]
    assert place.tolist() == [0, 1, 0, 1, 2]


# ---- metrics


def test_metrics_of_known_ranks() -> None:
    values = dict(zip(METRICS, per_target(np.array([0, 2, 9, 10, 99, 100])).T.tolist(), strict=True))
    assert values["hr10"] == [1, 1, 1, 0, 0, 0]
    assert values["hr100"] == [1, 1, 1, 1, 1, 0]
    assert values["ndcg10"][:4] == pytest.approx([1, 0.5, 1 / np.log2(11), 0])
    assert values["ndcg100"][3:] == pytest.approx([1 / np.log2(12), 1 / np.log2(101), 0])
    assert values["mrr"] == pytest.approx([1, 1 / 3, 0.1, 1 / 11, 0.01, 1 / 101])


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Targets of a user are alike: an interval over targets would cover .5 here far less often."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        users = np.repeat(np.arange(60), rng.integers(1, 20, 60))
        hits = (rng.random(len(users)) < rng.choice([0.1, 0.9], 60)[users]).astype(float)
        low, high = interval(hits[:, None], users, resamples=300)
        covered += int(low[0] <= 0.5 <= high[0])
    print(f"covered {covered} of 200")
    assert 175 <= covered <= 199


def test_an_interval_is_the_same_every_time() -> None:
    users, ranks = np.array([7, 7, 3, 9]), np.array([0, 40, 3, 200])
    assert measure(ranks, users, seed=3) == measure(ranks, users, seed=3)
    measured = measure(ranks, users)
    assert (measured.targets, measured.users) == (4, 3)
    assert measured.value["hr10"] == 0.5
    assert measured.low["hr10"] < 0.5 < measured.high["hr10"]
