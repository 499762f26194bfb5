"""What becomes of the hit rate when the state is behind: the freshness curve.

A state is behind by so many events, or by so much time: it has seen the events that are at least that much older than the target.
The targets stay the same at every point, and so does what is excluded as seen. Who has no state yet at a point is ranked by
popularity, as a ranker does for a user it does not find.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.evaluation.metrics import interval
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
    targets = split.targets
    made = [Point(f"events_{k}", np.maximum(targets.before - k, 0)) for k in events]
    made += [Point(f"seconds_{s}", seen_until(split, 1000 * s)) for s in seconds]
    if split.cutoff_ms is not None:
        made.append(Point(FROZEN, split.train_counts[targets.user]))
    assert all((point.seen <= targets.before).all() for point in made)
    return made


def seen_until(split: Split, behind_ms: int) -> NDArray[np.int64]:
    """`(n,)` i64, the events of its user that are at least so much older than each target."""
    data, targets = split.data, split.targets
    # One search for all users: each one's times are moved behind those of the user before.
    user_of = data.owners
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

    `gain` of a point is HR@10 by states minus HR@10 by popularity, with its interval, of the targets that have a state there.
    `fallback_events`, `fallback_seconds`: where the gain comes to 0, and a ranker does better without the state; None: nowhere.
    `unsure_events`, `unsure_seconds`: where the lower end of its interval does, and the gain may be chance.

    Args:
        kinds: kind -> `(n,)` bool, which targets.
    """
    lines: dict[str, Any] = {}
    for kind, chosen in {"all": np.ones(len(split.targets), bool), **kinds}.items():
        if not chosen.any():
            continue
        line: dict[str, Any] = {
            "targets": int(chosen.sum()),
            "popularity_hr10": round(float((popularity.unseen[chosen] < 10).mean()), 5),
            "points": [
                _measured(
                    point, ranks[point.name].unseen < 10, popularity.unseen < 10, split.targets.user, chosen, seed
                )
                for point in made
            ],
        }
        for unit in ("events", "seconds"):
            line[f"fallback_{unit}"] = crossing(*series(line, unit, "gain"), 0.0)
            line[f"unsure_{unit}"] = crossing(*series(line, unit, "gain_low"), 0.0)
        lines[kind] = line
    return lines


def _measured(
    point: Point,
    hit: NDArray[np.bool_],
    popular: NDArray[np.bool_],
    users: NDArray[np.int64],
    chosen: NDArray[np.bool_],
    seed: int,
) -> dict[str, Any]:
    """A point of the curve, of the chosen targets."""
    values = {"at": point.name, "without_state": round(float((point.seen[chosen] == 0).mean()), 5)}
    with_state = chosen & (point.seen > 0)
    for name, of, value in (
        ("hr10", chosen, hit.astype(np.float64)),
        ("gain", with_state, hit.astype(np.float64) - popular),
    ):
        if not of.any():
            continue
        low, high = interval(value[of][:, None], users[of], seed)
        found = zip(("", "_low", "_high"), (value[of].mean(), low[0], high[0]), strict=True)
        values |= {name + end: round(float(x), 5) for end, x in found}
    return values


def series(line: Mapping[str, Any], unit: str, value: str = "hr10") -> tuple[list[float], list[float]]:
    """The points of one axis, ascending: how far behind, and the value. A state behind by nothing is on both axes."""
    found = {}
    for point in line["points"]:
        name, _, behind = point["at"].partition("_")
        if value in point and (name == unit or point["at"] == "events_0"):
            found[float(behind)] = float(point[value])
    return list(found), list(found.values())


def crossing(behind: Sequence[float], values: Sequence[float], level: float) -> float | None:
    """How far behind a state may be until the values fall to the level, between the points by log(1 + x); None if they never
    do.
    """
    for i, value in enumerate(values):
        if value > level:
            continue
        if i == 0:
            return float(behind[0])
        a, b = np.log1p(behind[i - 1]), np.log1p(behind[i])
        share = (values[i - 1] - level) / (values[i - 1] - value)
        return float(f"{np.expm1(a + share * (b - a)):.3g}")
    return None


def at(behind: Sequence[float], hr: Sequence[float], x: float) -> float:
    """The curve's value at x, between the points by log(1 + x)."""
    return float(np.interp(np.log1p(x), np.log1p(behind), hr))
