"""How well a model foresees events that it did not train on: next items, ranked among all items that the user has not seen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from encoder.features import item_rows
from encoder.model import PinFM
from encoder.windows import Histories, cut

_BATCH = 16


class Validation(NamedTuple):
    """Of `targets` events. Popularity ranks by the counts of the training events."""

    targets: int
    hr10: float
    ndcg10: float
    popularity_hr10: float
    popularity_ndcg10: float


@torch.no_grad()
def validate(
    model: PinFM, data: Histories, first: int, seeds: tuple[int, ...], positive: NDArray[np.bool_], max_users: int = 500
) -> Validation:
    """Rank each positive event from place `first` of the log on, from what came before it in the newest window of its user.

    Every item of `data` is ranked but those of earlier events of the user's window. An event without an event before it is left
    out: it has no state.

    Args:
        positive: `(a,)` bool by action code.
        max_users: of more, the ones with the newest events are taken.
    """
    context = model.shape.context
    items = model.item_embeddings(torch.from_numpy(item_rows(data.item_ids, seeds, model.shape.rows)))
    vectors = model.item_vectors(items)
    counts = np.bincount(data.items[data.arrival < first], minlength=len(data.item_ids))
    # Ties among unpopular items would all count as ranked above: break them.
    popularity = counts + np.random.default_rng(0).random(len(counts)) * 0.5

    ends = data.starts[1:]
    newest = np.argsort(data.arrival[ends - 1])[::-1][:max_users]
    spans = np.stack([np.maximum(data.starts[newest], ends[newest] - context - 1), ends[newest]], axis=1)
    spans = spans[spans[:, 1] - spans[:, 0] >= 2]
    ranks: list[NDArray[np.int64]] = []
    popular_ranks: list[NDArray[np.int64]] = []
    for at in range(0, len(spans), _BATCH):
        batch = cut(data, spans[at : at + _BATCH], positive)
        inputs = (torch.from_numpy(column[:, :-1]) for column in (batch.actions, batch.surfaces, batch.gaps))
        hidden, _ = model.encode(
            model.event_tokens(functional.embedding(torch.from_numpy(batch.items[:, :-1]), items), *inputs)
        )
        row, step = np.nonzero(batch.is_target & (batch.arrival[:, 1:] >= first))
        if not len(row):
            continue
        truth = batch.items[row, step + 1]
        seen = np.zeros((len(row), len(data.item_ids)), bool)
        before = np.arange(batch.items.shape[1]) <= step[:, None]  # (n, W)
        target, place = np.nonzero(before)
        seen[target, batch.items[row[target], place]] = True
        seen[np.arange(len(row)), truth] = False
        scores = (hidden[torch.from_numpy(row), torch.from_numpy(step)] @ vectors.T).numpy()
        ranks.append(_ranks(scores, truth, seen))
        popular_ranks.append(_ranks(np.broadcast_to(popularity, scores.shape), truth, seen))
    rank, popular = (np.concatenate(r) if r else np.empty(0, np.int64) for r in (ranks, popular_ranks))
    return Validation(len(rank), *_metrics(rank), *_metrics(popular))


def _ranks(scores: NDArray[np.floating], truth: NDArray[np.int64], seen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many unseen items score above the true one. `(n, m)` -> `(n,)`."""
    true = np.take_along_axis(scores, truth[:, None], axis=1)
    above: NDArray[np.int64] = ((scores > true) & ~seen).sum(axis=1)
    return above


def _metrics(ranks: NDArray[np.int64]) -> tuple[float, float]:
    """HR@10 and NDCG@10."""
    if not len(ranks):
        return 0.0, 0.0
    hits = ranks < 10
    return float(hits.mean()), float(np.where(hits, 1 / np.log2(ranks + 2), 0).mean())
