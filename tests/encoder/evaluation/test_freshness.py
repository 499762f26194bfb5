from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encoder.evaluation.baselines import popularity
from encoder.evaluation.freshness import at, crossing, curve, points, scorers, seen_until, series
from encoder.evaluation.protocol import groups, time_split
from encoder.evaluation.ranking import rank_all
from encoder.evaluation.states import Embedder
from encoder.features import item_seeds
from tests.encoder.evaluation.logs import random_log
from tests.encoder.evaluation.test_states import _model


@pytest.mark.parametrize("behind_ms", [0, 1, 700, 40_000, 10_000_000, 10**12])
def test_what_a_state_has_seen_that_is_so_far_behind(behind_ms: int) -> None:
    log = random_log(users=5, events=150)
    split = time_split(log, int(log.records["timestamp_ms"][50]))
    times = split.data.timestamps_ms
    expected = [
        sum(int(times[i]) <= int(times[event]) - behind_ms for i in range(start, event))
        for event, start in zip(split.targets.event.tolist(), split.targets.start.tolist(), strict=True)
    ]
    assert seen_until(split, behind_ms).tolist() == expected


def test_the_curve_ranks_by_older_states_and_by_popularity_without_one() -> None:
    log = random_log(users=5, events=150)
    split = time_split(log, int(log.records["timestamp_ms"][50]))
    data, targets = split.data, split.targets
    embedder, fallback = Embedder(_model(), data, item_seeds(0)), popularity(split)
    made = points(split, events=(0, 3), seconds=(60,))
    assert [point.name for point in made] == ["events_0", "events_3", "seconds_60", "frozen"]
    assert made[1].seen.tolist() == [max(0, n - 3) for n in targets.before]
    assert made[3].seen.tolist() == split.train_counts[targets.user].tolist()
    rows = np.arange(len(targets))
    for name, scorer in scorers(split, embedder, fallback, made).items():
        seen = next(point.seen for point in made if point.name == name)
        got = scorer(rows)
        some = seen > 0
        states = embedder.embeddings(targets.start[some], seen[some])
        np.testing.assert_allclose(got[some], (states @ embedder.vectors.T).numpy(), atol=1e-5)
        np.testing.assert_array_equal(got[~some], fallback(rows[~some]))
    ranks = rank_all(data, targets, scorers(split, embedder, fallback, made))
    popular = rank_all(data, targets, {"popularity": fallback})["popularity"]
    kinds = {name: mask for name, mask in groups(split).items() if name == "warm"}
    line = curve(split, made, ranks, popular, kinds)["all"]
    assert [point["at"] for point in line["points"]] == [point.name for point in made]
    for point in line["points"]:
        assert point["hr10"] == pytest.approx((ranks[point["at"]].unseen < 10).mean(), abs=1e-5)
        assert point["hr10_low"] <= point["hr10"] <= point["hr10_high"]
        some = next(each.seen for each in made if each.name == point["at"]) > 0
        hits = [(of.unseen[some] < 10).mean() for of in (ranks[point["at"]], popular)]
        assert point["gain"] == pytest.approx(hits[0] - hits[1], abs=1e-5)
    assert line["points"][1]["without_state"] == pytest.approx((targets.before <= 3).mean(), abs=1e-5)


def test_when_to_fall_back() -> None:
    assert crossing([0, 1, 10], [0.3, 0.2, 0.1], 0.05) is None
    assert crossing([0, 1, 10], [0.3, 0.2, 0.1], 0.3) == 0
    assert crossing([0, 1, 10], [0.3, 0.2, 0.1], 0.1) == pytest.approx(10)
    halfway = crossing([0, 1, 10], [0.3, 0.2, 0.1], 0.15)
    assert halfway == pytest.approx(np.sqrt(2 * 11) - 1, rel=0.01)
    assert at([0, 1, 10], [0.3, 0.2, 0.1], halfway or 0) == pytest.approx(0.15, abs=1e-3)
    assert crossing([], [], 0) is None


def _curve() -> dict[str, object]:
    names = ["events_0", "events_5", "seconds_1", "seconds_60", "seconds_86400", "frozen"]
    hr = [0.2, 0.1, 0.19, 0.1, 0.04, 0.03]
    line = {
        "targets": 9,
        "popularity_hr10": 0.05,
        "points": [
            {"at": name, "hr10": y, "hr10_low": y - 0.01, "hr10_high": y + 0.01, "gain": y - 0.05, "without_state": 0.0}
            for name, y in zip(names, hr, strict=True)
        ],
    }
    return {"all": line, "warm": line}


def test_the_two_axes_of_a_curve() -> None:
    line = _curve()["all"]
    assert series(line, "events") == ([0, 5], [0.2, 0.1])  # type: ignore[arg-type]
    assert series(line, "seconds") == ([0, 1, 60, 86_400], [0.2, 0.19, 0.1, 0.04])  # type: ignore[arg-type]
    assert series(line, "events", "gain")[1] == pytest.approx([0.15, 0.05])  # type: ignore[arg-type]


def test_a_picture_of_it(tmp_path: Path) -> None:
    from encoder.evaluation.plot import plot_freshness

    drawn = []
    for name in ("a.svg", "b.svg"):
        plot_freshness(_curve(), tmp_path / name, "a log", 0.16, [{"freshness_ms": 35.0, "hr10": 0.199}])
        drawn.append((tmp_path / name).read_text())
    assert drawn[0] == drawn[1], "the same figures give the same picture"
    assert "<svg" in drawn[0]
