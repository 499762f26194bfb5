"""What becomes of the hit rate when the state is behind: the freshness curve.

A state is behind by so many events, or by so much time: it has seen the events that are at least that much older than the target.
The targets stay the same at every point, and so does what is excluded as seen. Who has no state yet at a point is ranked by
popularity, as a ranker does for a user it does not find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.evaluation.metrics import measure
from encoder.evaluation.protocol import Split
from encoder.evaluation.ranking import Ranks, Rows, Scorer
from encoder.evaluation.states import Embedder

EVENTS_BEHIND = (0, 1, 2, 5, 10, 20, 50)
SECONDS_BEHIND = (1, 10, 60, 300, 600, 1800, 3600, 21_600, 86_400)
FROZEN = "frozen"


@dataclass(frozen=True)
class Point:
    """
    Attributes:
        name: `events_5`, `seconds_60` or `frozen`.
        seen: `(n,)` i64, the events of its user that each target's state has seen; 0: there is no state.
    """

    name: str
    seen: NDArray[np.int64]


def points(split: Split, events: Sequence[int] = EVENTS_BEHIND, seconds: Sequence[int] = SECONDS_BEHIND) -> list[Point]:
    """The curve's points: events behind, seconds behind, and for a time split states that end at T."""
    data, targets = split.data, split.targets
    made = [Point(f"events_{k}", np.maximum(targets.before - k, 0)) for k in events]
    made += [Point(f"seconds_{s}", seen_until(split, 1000 * s)) for s in seconds]
    if split.cutoff_ms is not None:
        made.append(Point(FROZEN, split.train_counts[targets.user]))
    assert all((point.seen <= targets.before).all() for point in made), len(data.items)
    return made


def seen_until(split: Split, behind_ms: int) -> NDArray[np.int64]:
    """`(n,)` i64, the events of its user that are at least so much older than each target."""
    data, targets = split.data, split.targets
    # One search for all users: each one's times are moved behind those of the user before.
    user_of = np.repeat(np.arange(len(data.starts) - 1), np.diff(data.starts))
    times = data.timestamps_ms - data.timestamps_ms.min()
    stride = int(times.max()) + behind_ms + 2
    until = np.maximum(times[targets.event] - behind_ms, -1) + 1
    found = np.searchsorted(times + 1 + stride * user_of, until + stride * targets.user, side="right") - targets.start
    # Behind by nothing, events of the target's own time are found too, and the target.
    seen: NDArray[np.int64] = np.minimum(found, targets.before)
    return seen


def scorers(split: Split, embedder: Embedder, fallback: Scorer, made: Sequence[Point]) -> dict[str, Scorer]:
    """A scorer for each point. States that several points share are computed once."""
    targets = split.targets
    longest = int(np.diff(split.data.starts).max()) + 1
    keys = [targets.start * longest + point.seen for point in made]
    with_state = [point.seen > 0 for point in made]
    unique = np.unique(np.concatenate([key[some] for key, some in zip(keys, with_state, strict=True)]))
    embeddings = embedder.embeddings(unique // longest, unique % longest).numpy()  # (states, d)
    vectors = embedder.vectors.numpy()

    def scorer(key: NDArray[np.int64], some: NDArray[np.bool_]) -> Scorer:
        at = np.searchsorted(unique, np.where(some, key, unique[:1]))

        def score(rows: Rows) -> NDArray[np.floating[Any]]:
            scores: NDArray[np.floating[Any]] = embeddings[at[rows]] @ vectors.T
            missing = ~some[rows]
            if missing.any():
                scores[missing] = fallback(rows[missing])
            return scores

        return score

    return {point.name: scorer(key, some) for point, key, some in zip(made, keys, with_state, strict=True)}


def curve(
    split: Split,
    made: Sequence[Point],
    ranks: dict[str, Ranks],
    popularity: Ranks,
    kinds: dict[str, NDArray[np.bool_]],
    seed: int = 0,
) -> dict[str, Any]:
    """The curve for JSON: for all targets and for each kind, each point's HR@10 with its interval; and when to fall back.

    Args:
        kinds: kind -> `(n,)` bool, which targets.
    """
    users = split.targets.user
    lines: dict[str, Any] = {}
    for kind, chosen in {"all": np.ones(len(users), bool), **kinds}.items():
        if not chosen.any():
            continue
        hr = {point.name: measure(ranks[point.name].unseen[chosen], users[chosen], seed) for point in made}
        popular = float((popularity.unseen[chosen] < 10).mean())
        line = {
            "targets": int(chosen.sum()),
            "popularity_hr10": round(popular, 5),
            "points": [
                {
                    "at": point.name,
                    "hr10": round(hr[point.name].value["hr10"], 5),
                    "low": round(hr[point.name].low["hr10"], 5),
                    "high": round(hr[point.name].high["hr10"], 5),
                    "without_state": round(float((point.seen[chosen] == 0).mean()), 5),
                }
                for point in made
            ],
        }
        for unit in ("events", "seconds"):
            xs, ys = series(line, unit)
            line[f"fallback_{unit}"] = crossing(xs, ys, popular)
        lines[kind] = line
    return lines


def series(line: dict[str, Any], unit: str) -> tuple[list[float], list[float]]:
    """The points of one axis, ascending: how far behind, and HR@10. A state behind by nothing is on both axes."""
    found = {}
    for point in line["points"]:
        name, _, behind = point["at"].partition("_")
        if name == unit or point["at"] == "events_0":
            found[float(behind)] = float(point["hr10"])
    return list(found), list(found.values())


def crossing(behind: Sequence[float], hr: Sequence[float], level: float) -> float | None:
    """How far behind a state may be until the curve falls to the level, between the points by log(1 + x); None if it never
    does. From there on a ranker does better without the state.
    """
    if hr[0] <= level:
        return float(behind[0])
    for i in range(1, len(hr)):
        if hr[i] <= level:
            a, b = np.log1p(behind[i - 1]), np.log1p(behind[i])
            share = (hr[i - 1] - level) / (hr[i - 1] - hr[i])
            return float(f"{np.expm1(a + share * (b - a)):.3g}")
    return None


def at(behind: Sequence[float], hr: Sequence[float], x: float) -> float:
    """The curve's value at x, between the points by log(1 + x)."""
    return float(np.interp(np.log1p(x), np.log1p(behind), hr))
