"""One split, measured: baselines once, then each model beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.checkpoint import Checkpoint
from encoder.evaluation.baselines import fit_counts, popularity
from encoder.evaluation.freshness import curve, points, scorers
from encoder.evaluation.metrics import measure
from encoder.evaluation.protocol import Split, groups
from encoder.evaluation.ranking import Ranks, Scorer, rank_all
from encoder.evaluation.sasrec import SasrecConfig, train_sasrec
from encoder.evaluation.states import Embedder
from encoder.model import PinFM

Tell = Callable[[str], None]

#: What the freshness curve tells apart, besides all targets.
CURVE_KINDS = ("warm", "new_users")


@dataclass(frozen=True)
class Baselines:
    """
    Attributes:
        ranks: popularity, counts, and sasrec if it was asked for.
        notes: how each came about.
        popularity: the scorer that stands in for a missing state.
    """

    ranks: dict[str, Ranks]
    popularity: Scorer
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelEvaluation:
    """
    Attributes:
        ranks: of the served window in full precision.
        freshness: the curve for JSON (encoder.evaluation.freshness.curve); None if it was not asked for.
    """

    ranks: Ranks
    freshness: dict[str, Any] | None


def evaluate_baselines(split: Split, sasrec: SasrecConfig | None, seed: int, tell: Tell) -> Baselines:
    """Rank by popularity, item-to-item counts and, if configured, SASRec."""
    popular = popularity(split)
    counts, config = fit_counts(split, seed)
    tell(f"item-to-item counts: {config}")
    rankers: dict[str, Scorer] = {"popularity": popular, "counts": counts}
    notes: dict[str, Any] = {"counts": asdict(config)}
    if sasrec is not None:
        tell(f"training SASRec for {sasrec.max_seconds:g} s")
        rankers["sasrec"], steps = train_sasrec(split, sasrec)
        notes["sasrec"] = {**asdict(sasrec), "steps": steps}
    tell(f"ranking {len(split.targets):,} targets by {', '.join(rankers)}")
    return Baselines(rank_all(split.data, split.targets, rankers, seed), popular, notes)


def evaluate_model(
    split: Split, checkpoint: Checkpoint, baselines: Baselines, freshness: bool, seed: int
) -> ModelEvaluation:
    """Rank by the states that a checkpoint's model makes, through the window that is served.

    Args:
        freshness: also by states that are behind.
    """
    notes = checkpoint.notes
    model = PinFM(notes.shape, notes.vocabulary)
    model.load_weights(checkpoint.weights)
    embedder = Embedder(model, split.data, notes.item_seeds)
    made = points(split) if freshness else points(split, events=(0,), seconds=())[:1]
    ranks = rank_all(split.data, split.targets, scorers(split, embedder, baselines.popularity, made), seed)
    line = None
    if freshness:
        kinds = {name: chosen for name, chosen in groups(split).items() if name in CURVE_KINDS}
        line = curve(split, made, ranks, baselines.ranks["popularity"], kinds, seed)
    return ModelEvaluation(ranks["events_0"], line)


def tables(split: Split, ranks: Mapping[str, Ranks], seed: int) -> dict[str, Any]:
    """For JSON: scorer -> seen items excluded or kept -> kind of target -> metrics with intervals."""
    users = split.targets.user
    kinds: dict[str, NDArray[np.bool_]] = {"all": np.ones(len(users), bool), **groups(split)}

    def by_kind(of: NDArray[np.int64]) -> dict[str, Any]:
        return {
            kind: measure(of[chosen], users[chosen], seed).as_dict() for kind, chosen in kinds.items() if chosen.any()
        }

    return {name: {"seen_excluded": by_kind(r.unseen), "seen_kept": by_kind(r.all)} for name, r in ranks.items()}
