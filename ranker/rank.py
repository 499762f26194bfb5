"""From a user's state to a ranked list: retrieve by the user embedding, cross what was retrieved, sort.

The smallest complete ranker: `slipstream rank USER`, the demo's list, and where to begin with one's own.

Letters: n items of the catalogue, d model width, k results.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoder.bundle import Bundle
from ranker.dcat import Dcat, Request
from ranker.reader import StateReader
from ranker.rows import Row, Status

DEFAULT_CANDIDATES = 256
#: What candidates were chosen by.
Retrieval = Literal["embedding", "popularity", "given"]
_NO_ITEMS = np.empty(0, np.int64)


@dataclass(frozen=True)
class Catalogue:
    """The items that can be retrieved.

    Attributes:
        ids: `(n,)` i64, ascending.
        vectors: `(n, d)` f32, unit length. In f32 since numpy multiplies f16 without BLAS: 4 n d bytes of memory.
        counts: `(n,)` i64, how popular an item was in training.
    """

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, bundle: Bundle) -> Catalogue:
        return cls(
            np.asarray(bundle.catalogue_ids),
            np.ascontiguousarray(bundle.catalogue_vectors, np.float32),
            np.asarray(bundle.catalogue_counts),
        )


class Retrieved(NamedTuple):
    """
    Attributes:
        items: `(k,)` i64 item ids, the best first; fewer if the catalogue has fewer. Of equal scores the lower id comes first.
        scores: `(k,)` f32, what they were chosen by.
    """

    items: NDArray[np.int64]
    scores: NDArray[np.float32]


class RankedItem(NamedTuple):
    """
    Attributes:
        score: of the crossing: the logit of an engagement. The list is sorted by it.
        retrieval_score: user embedding . item vector; the item's count in training if retrieval was by popularity; 0 if the
            candidates were given.
    """

    item_id: int
    score: float
    retrieval_score: float


class Ranking(NamedTuple):
    """A user's ranked items, and how much they can be trusted.

    Attributes:
        status, age_ms, length, why: of the row that was read (ranker.rows.Row).
        items: the best first.
    """

    user: str
    status: Status
    age_ms: int | None
    length: int
    why: str
    retrieval: Retrieval
    items: list[RankedItem]


def retrieve(
    embedding: NDArray[np.floating], catalogue: Catalogue, k: int, exclude: NDArray[np.int64] = _NO_ITEMS
) -> Retrieved:
    """The k items whose vectors have the greatest dot products with the user embedding. Exact: every item is compared.

    Args:
        embedding: `(d,)`, of a state.
        exclude: `(m,)` item ids that must not come, as those that the user has seen.
    """
    return _best(catalogue.vectors @ embedding.astype(np.float32), catalogue, k, exclude)


def retrieve_popular(catalogue: Catalogue, k: int, exclude: NDArray[np.int64] = _NO_ITEMS) -> Retrieved:
    """The k items that were engaged with most often in training: for users without a state."""
    return _best(catalogue.counts.astype(np.float32), catalogue, k, exclude)


def _best(scores: NDArray[np.float32], catalogue: Catalogue, k: int, exclude: NDArray[np.int64]) -> Retrieved:
    allowed = np.isin(catalogue.ids, exclude, invert=True)
    items, scores = catalogue.ids[allowed], scores[allowed]
    if k < len(items):
        # Everything that is as good as the k-th, so that ties are broken by id and not by chance.
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k] if k else np.inf
        best = scores >= threshold
        items, scores = items[best], scores[best]
    order = np.lexsort((items, -scores))[:k]
    return Retrieved(items[order], scores[order])


def rank_row(
    row: Row,
    dcat: Dcat,
    catalogue: Catalogue,
    k: int = 10,
    candidates: int = DEFAULT_CANDIDATES,
    exclude_seen: bool = True,
) -> Ranking:
    """Rank items for a row that was read already. Whatever its status, there is a list: without a state it is what is popular.

    Args:
        k: items returned.
        candidates: items retrieved, crossed and sorted; at least k.
        exclude_seen: leave out the items of the state's events.
    """
    candidates = max(k, candidates)
    state = row.state
    if state is not None:
        seen = state.events["item_id"] if exclude_seen else _NO_ITEMS
        retrieved = retrieve(state.header.embedding, catalogue, candidates, seen)
    else:
        retrieved = retrieve_popular(catalogue, candidates)
    return _ranking(row, dcat, retrieved, k, "popularity" if state is None else "embedding")


def rank_given(row: Row, dcat: Dcat, items: NDArray[np.int64], k: int = 10) -> Ranking:
    """Rank `(c,)` item ids of the caller's own choice for a row that was read already; repetitions count once."""
    distinct = np.unique(items)
    return _ranking(row, dcat, Retrieved(distinct, np.zeros(len(distinct), np.float32)), k, "given")


def _ranking(row: Row, dcat: Dcat, retrieved: Retrieved, k: int, retrieval: Retrieval) -> Ranking:
    (crossed,) = dcat.score([Request(row, retrieved.items)])
    order = np.lexsort((retrieved.items, -crossed.score))[:k]
    items = [
        RankedItem(item_id, score, retrieval_score)
        for item_id, score, retrieval_score in zip(
            retrieved.items[order].tolist(),
            crossed.score[order].tolist(),
            retrieved.scores[order].tolist(),
            strict=True,
        )
    ]
    return Ranking(row.user, row.status, row.age_ms, row.length, row.why, retrieval, items)


def rank_user(
    reader: StateReader,
    dcat: Dcat,
    catalogue: Catalogue,
    user: str,
    k: int = 10,
    candidates: int = DEFAULT_CANDIDATES,
    max_age_ms: int | None = None,
    exclude_seen: bool = True,
) -> Ranking:
    """Read one user's state and rank items for it; arguments as `StateReader.read` and `rank_row`.

    Raises:
        UnavailableError: Redis could not be reached. A state that is missing or damaged does not raise: `status` tells.
    """
    (row,) = reader.read([user], max_age_ms)
    return rank_row(row, dcat, catalogue, k, candidates, exclude_seen)
