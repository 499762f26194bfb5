"""What fresh states are worth: HR@10 and NDCG@10 of the next item, ranked by live and by frozen user embeddings.

Protocol: every replayed event is a target. All items of the model's catalogue are ranked by embedding · psi(item), those that the
user engaged with before the target excluded. `live` uses the embedding that a ranker read from Redis just before the event was
sent; `frozen` the one read at the split. A user without an embedding gets the most popular items, in both. A target that is
not in the catalogue (an item first seen after training) counts as a miss, in both.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.log import EventLog

CUTOFF = 10


class Catalogue(NamedTuple):
    """The items that can be ranked: ids `(n,)` i64 ascending or not, vectors `(n, d)`, counts `(n,)` i64."""

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    counts: NDArray[np.int64]


class Quality(NamedTuple):
    hit_rate_at_10: float
    ndcg_at_10: float


def catalogue_columns(item_ids: NDArray[np.int64], catalogue: Catalogue) -> NDArray[np.int64]:
    """Each item's row in the catalogue, -1 where it is not in it. `(n,)` -> `(n,)`."""
    order = np.argsort(catalogue.ids)
    at = np.searchsorted(catalogue.ids, item_ids, sorter=order)
    rows = order[np.minimum(at, len(order) - 1)]
    return np.where(catalogue.ids[rows] == item_ids, rows, -1)


def target_ranks(
    history: EventLog,
    targets: EventLog,
    embeddings: NDArray[np.float32],
    known: NDArray[np.bool_],
    catalogue: Catalogue,
) -> NDArray[np.float64]:
    """The rank of each target, 0 the best, among the items that its user had not engaged with; infinite if it cannot be ranked.

    Args:
        history: the events before the first target; it shares `users` with `targets`.
        targets: n events, in order; each counts as engaged with for those after it.
        embeddings: `(n, d)`, the user embedding for each target; rows where not `known` are not read.
        known: `(n,)`, whether there was an embedding; if not, popularity ranks.
    """
    unseen = np.ones((len(targets.users), len(catalogue.ids)), bool)
    before = catalogue_columns(history.records["item_id"], catalogue)
    unseen[history.user_index[before >= 0], before[before >= 0]] = False
    columns = catalogue_columns(targets.records["item_id"], catalogue)
    popularity = catalogue.counts.astype(np.float32)
    ranks = np.full(len(targets), np.inf)
    for row, (user, column) in enumerate(zip(targets.user_index.tolist(), columns.tolist(), strict=True)):
        if column < 0:
            continue
        scores = catalogue.vectors @ embeddings[row] if known[row] else popularity
        candidates = unseen[user]
        # A repeated item is a target as well: it competes with the unseen ones. Half of the ties rank before it.
        better = np.count_nonzero(candidates & (scores > scores[column]))
        equal = np.count_nonzero(candidates & (scores == scores[column])) - int(candidates[column])
        ranks[row] = better + equal / 2
        candidates[column] = False
    return ranks


def quality(ranks: NDArray[np.float64]) -> Quality:
    """HR@10 and NDCG@10 of one relevant item per target."""
    if not len(ranks):
        return Quality(float("nan"), float("nan"))
    hit = ranks < CUTOFF
    gain = np.where(hit, 1 / np.log2(np.where(hit, ranks, 0) + 2), 0)
    return Quality(float(hit.mean()), float(gain.mean()))
