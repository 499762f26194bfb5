"""How well a model foresees events that it did not train on: next items, ranked among all items that the user has not seen.

This is what a training watches and reports; `slipstream evaluate` measures more, and with baselines that are harder to beat.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from encoder.evaluation.metrics import METRICS, per_target
from encoder.features import item_rows
from encoder.model import PinFM
from encoder.train_data import Part, part
from encoder.windows import Histories, cut

_BATCH = 16


class Validation(NamedTuple):
    """Of `targets` events of `users` users. Popularity ranks by the counts of the training events. `_pm` are half widths of 95%
    intervals over users."""

    targets: int
    hr10: float
    ndcg10: float
    popularity_hr10: float
    popularity_ndcg10: float
    users: int
    hr10_pm: float
    ndcg10_pm: float


class Validator:
    """Ranks each positive event from place `first` of the log on, from what came before it in the newest window of its user.

    Every item of the part is ranked but those of earlier events of the user's window. An event without an event before it is left
    out: it has no state.
    """

    def __init__(
        self,
        data: Histories,
        first: int,
        seeds: tuple[int, ...],
        positive: NDArray[np.bool_],
        context: int,
        *,
        until: Part | None = None,
        max_users: int = 500,
        sample_seed: int | None = None,
    ) -> None:
        """
        Args:
            positive: `(a,)` bool by action code.
            until: what may be seen at all; the whole log by default.
            max_users: of more, the ones with the newest events are taken, or with `sample_seed` random ones.
        """
        self._data, self._first, self._seeds, self._positive = data, first, seeds, positive
        until = until or part(data, len(data.items))
        self._known = until.counts > 0
        counts = part(data, first).counts
        # Ties among unpopular items would all count as ranked above: break them.
        self._popularity = counts + np.random.default_rng(0).random(len(counts)) * 0.5
        starts, ends = data.starts[:-1], until.ends
        users = np.flatnonzero(ends - starts >= 2)
        newest = data.arrival[ends[users] - 1]
        if sample_seed is None:
            users = users[np.argsort(newest)[::-1][:max_users]]
        else:
            users = np.random.default_rng(sample_seed).permutation(users[newest >= first])[:max_users]
        self._spans = np.stack([np.maximum(starts[users], ends[users] - context - 1), ends[users]], axis=1)

    @torch.no_grad()
    def measure(self, model: PinFM) -> Validation:
        """Of a model on any device, in evaluation mode."""
        data, device = self._data, model.items.device
        rows = torch.from_numpy(item_rows(data.item_ids, self._seeds, model.shape.rows)).to(device)
        items = model.item_embeddings(rows)
        vectors = model.item_vectors(items)
        ranks, popular_ranks, owners = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for at in range(0, len(self._spans), _BATCH):
            batch = cut(data, self._spans[at : at + _BATCH], self._positive)
            row, step = np.nonzero(batch.is_target & (batch.arrival[:, 1:] >= self._first))
            if not len(row):
                continue
            hidden = _states(model, items, batch.items, batch.actions, batch.surfaces, batch.gaps)
            truth = batch.items[row, step + 1]
            seen = np.repeat(~self._known[None], len(row), axis=0)  # (n, m)
            before = np.arange(batch.items.shape[1]) <= step[:, None]  # (n, W)
            target, place = np.nonzero(before)
            seen[target, batch.items[row[target], place]] = True
            seen[np.arange(len(row)), truth] = False
            scores = (hidden[torch.from_numpy(row), torch.from_numpy(step)] @ vectors.T).cpu().numpy()
            ranks.append(_ranks(scores, truth, seen))
            popular_ranks.append(_ranks(np.broadcast_to(self._popularity, scores.shape), truth, seen))
            owners.append(at + row)
        rank, popular, owner = (np.concatenate(parts) for parts in (ranks, popular_ranks, owners))
        hits, gains = _gains(rank)
        (hr10, hr10_pm), (ndcg10, ndcg10_pm) = _mean(hits, owner), _mean(gains, owner)
        popular_hr10, popular_ndcg10 = (_mean(values, owner)[0] for values in _gains(popular))
        users = len(np.unique(owner))
        return Validation(len(rank), hr10, ndcg10, popular_hr10, popular_ndcg10, users, hr10_pm, ndcg10_pm)


def _states(model: PinFM, items: Tensor, *columns: NDArray[np.int64]) -> Tensor:
    """`(B, T, d)` of windows' items, actions, surfaces and gaps, `(B, W)` each."""
    places, *codes = (torch.from_numpy(column[:, :-1]).to(items.device) for column in columns)
    hidden, _ = model.encode(model.event_tokens(functional.embedding(places, items), *codes))
    return hidden


def _ranks(scores: NDArray[np.floating], truth: NDArray[np.int64], seen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many unseen items score above the true one. `(n, m)` -> `(n,)`."""
    true = np.take_along_axis(scores, truth[:, None], axis=1)
    above: NDArray[np.int64] = ((scores > true) & ~seen).sum(axis=1)
    return above


def _gains(ranks: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each rank adds to HR@10 and NDCG@10."""
    columns = dict(zip(METRICS, per_target(ranks).T, strict=True))
    return columns["hr10"], columns["ndcg10"]


def _mean(values: NDArray[np.float64], owner: NDArray[np.int64]) -> tuple[float, float]:
    """Mean over targets and half the width of its 95% interval, users being what was drawn (linearised ratio of two sums)."""
    if not len(values):
        return 0.0, 0.0
    mean = values.mean()
    _, user = np.unique(owner, return_inverse=True)
    residuals = np.bincount(user, values - mean)
    users = len(residuals)
    spread = np.sqrt(users / max(users - 1, 1) * (residuals**2).sum()) / len(values)
    return float(mean), float(1.96 * spread)
