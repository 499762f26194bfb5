"""What one would use without a model: popularity, and item-to-item transition counts, which is hard to beat.

Counts: how often b came within `reach` events after a, each pair by 1 / distance. A user's next item is scored by the rows of his
last `items`, newest first by `decay`, each divided by how often a came to a power. The settings are chosen on the end of what may
be trained on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from encoder.evaluation.metrics import per_target
from encoder.evaluation.protocol import Split, Targets, targets_of
from encoder.evaluation.ranking import Rows, Scorer, ragged, rank_all
from encoder.windows import Histories

#: Up to so many items the table of counts is a dense matrix, which is many times faster.
DENSE_ITEMS = 8192
_VALIDATION_TARGETS = 2000
_VALIDATION_SHARE = 0.1


def popularity(split: Split) -> Scorer:
    """Scores are the items' training events."""
    counts = split.item_counts.astype(np.float32)
    return lambda rows: np.broadcast_to(counts, (len(rows), len(counts)))


@dataclass(frozen=True)
class CountsConfig:
    """
    Attributes:
        reach: events after one that it counts towards.
        items: of a user's newest events, that vote.
        decay: of their votes, from one to the next older.
        row_power: a row is divided by this power of its sum: 1 makes rows probabilities, 0 lets frequent items speak louder.
        column_power: a score is divided by this power of the scored item's training events.
    """

    reach: int = 5
    items: int = 5
    decay: float = 0.7
    row_power: float = 0.5
    column_power: float = 0.25


@dataclass(frozen=True)
class Transitions:
    """A sparse matrix of counts by row: columns and values of row a are [offsets[a], offsets[a + 1])."""

    offsets: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: NDArray[np.float64]
    item_counts: NDArray[np.int64]


def count_transitions(data: Histories, trained: NDArray[np.bool_], reach: int) -> Transitions:
    """Count the pairs among the events that may be trained on."""
    m = len(data.item_ids)
    user_of = data.owners
    pairs, weights = [], []
    for distance in range(1, reach + 1):
        both = (user_of[:-distance] == user_of[distance:]) & trained[:-distance] & trained[distance:]
        # One distance at a time: pairs of the same items are joined before the next are gathered.
        found, count = np.unique(data.items[:-distance][both] * m + data.items[distance:][both], return_counts=True)
        pairs.append(found)
        weights.append(count / distance)
    pair, place = np.unique(np.concatenate(pairs), return_inverse=True)
    values = np.bincount(place, weights=np.concatenate(weights), minlength=len(pair))
    counts = np.bincount(data.items[trained], minlength=m)
    return Transitions(np.searchsorted(pair, np.arange(m + 1) * m), pair % m, values.astype(np.float64), counts)


def counts_scorer(data: Histories, targets: Targets, table: Transitions, config: CountsConfig) -> Scorer:
    """Scores by the newest events before each target."""
    m = len(data.item_ids)
    sizes = np.diff(table.offsets)
    sums = np.add.reduceat(np.append(table.values, 0.0), np.minimum(table.offsets[:-1], len(table.values)))
    divided = np.where(sizes > 0, np.maximum(sums, 1e-9), 1.0) ** config.row_power
    scaled = table.values / np.repeat(divided, sizes)
    scaled = scaled / np.maximum(table.item_counts, 1)[table.columns] ** config.column_power

    dense = None
    if m <= DENSE_ITEMS:
        dense = torch.zeros(m, m)
        dense[torch.from_numpy(np.repeat(np.arange(m), sizes)), torch.from_numpy(table.columns)] = torch.from_numpy(
            scaled.astype(np.float32)
        )

    def score(rows: Rows) -> NDArray[np.floating[Any]]:
        voters = np.minimum(targets.before[rows], config.items)
        row, age = ragged(voters)
        item = data.items[targets.event[rows][row] - 1 - age]
        weight = (config.decay**age).astype(np.float32)
        if dense is not None:
            offsets = torch.from_numpy(np.cumsum(voters) - voters)
            votes = torch.from_numpy(weight)
            voted = functional.embedding_bag(
                torch.from_numpy(item), dense, offsets, mode="sum", per_sample_weights=votes
            )
            scores: NDArray[np.floating[Any]] = voted.numpy()
            return scores
        entry, place = ragged(sizes[item])
        source = table.offsets[item][entry] + place
        cell = row[entry] * m + table.columns[source]
        summed: NDArray[np.floating[Any]] = np.zeros(len(rows) * m)
        summed += np.bincount(cell, weights=scaled[source] * weight[entry], minlength=len(summed))
        return summed.reshape(len(rows), m)

    return score


def fit_counts(split: Split, seed: int = 0) -> tuple[Scorer, CountsConfig]:
    """Choose the settings on the end of the training events, then count all of these."""
    data = split.data
    fitted, held_out = _validation(split)
    targets = targets_of(data, held_out)
    if len(targets) > _VALIDATION_TARGETS:
        chosen = np.random.default_rng(seed).choice(len(targets), _VALIDATION_TARGETS, replace=False)
        targets = targets.take(np.sort(chosen))
    best = CountsConfig()
    if len(targets):
        ndcg = _Validated(data, fitted, targets)
        best = max(_REACH_AND_VOTES, key=ndcg)
        scaled = [replace(best, row_power=row, column_power=column) for row in _ROW_POWERS for column in _COLUMN_POWERS]
        best = max(scaled, key=ndcg)
    table = count_transitions(data, split.trained, best.reach)
    return counts_scorer(data, split.targets, table, best), best


def _validation(split: Split) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """What counts are chosen from: training events to count and later ones to foresee, by the split's own protocol."""
    data, trained = split.data, split.trained
    if split.protocol == "time":
        at = np.quantile(data.timestamps_ms[trained], 1 - _VALIDATION_SHARE)
        held_out = trained & (data.timestamps_ms >= at)
    else:
        held_out = np.zeros_like(trained)
        some = split.train_counts > 0
        held_out[(data.starts[:-1] + split.train_counts - 1)[some]] = True
    return trained & ~held_out, held_out


#: Chosen one after the other: what is counted and who votes, then how counts are scaled.
_REACH_AND_VOTES = tuple(
    CountsConfig(reach, items, decay) for reach in (1, 3, 10) for items, decay in ((1, 1.0), (3, 0.5), (10, 0.8))
)
_ROW_POWERS, _COLUMN_POWERS = (0.0, 0.5, 1.0), (0.0, 0.25, 0.5)


class _Validated:
    """NDCG@10 of a configuration. Tables are shared."""

    def __init__(self, data: Histories, fitted: NDArray[np.bool_], targets: Targets) -> None:
        self._data, self._fitted, self._targets = data, fitted, targets
        self._tables: dict[int, Transitions] = {}

    def __call__(self, config: CountsConfig) -> float:
        if config.reach not in self._tables:
            self._tables[config.reach] = count_transitions(self._data, self._fitted, config.reach)
        scorer = counts_scorer(self._data, self._targets, self._tables[config.reach], config)
        ranks = rank_all(self._data, self._targets, {"counts": scorer})["counts"].unseen
        return float(per_target(ranks)[:, 2].mean())
