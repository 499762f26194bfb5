from __future__ import annotations

import numpy as np
import pytest

from schemas.log import EventLog
from schemas.sequence import RECORD
from schemas.vocabulary import Vocabulary
from slipstream.demo.quality import Catalogue, catalogue_columns, quality, target_ranks

DIM = 4


def _log(pairs: list[tuple[int, int]]) -> EventLog:
    """Events as (user, item), a millisecond apart."""
    records = np.array([(at + 1, item, 1, 1) for at, (_, item) in enumerate(pairs)], RECORD)
    return EventLog(["a", "b", "c"], np.array([user for user, _ in pairs], np.int32), records, Vocabulary())


def _catalogue(items: int, seed: int = 0) -> Catalogue:
    rng = np.random.default_rng(seed)
    return Catalogue(
        rng.permutation(np.arange(100, 100 + items)),
        rng.standard_normal((items, DIM)).astype(np.float32),
        rng.integers(1, 1000, items),
    )


def _rank_by_hand(
    history: list[tuple[int, int]],
    targets: list[tuple[int, int]],
    embeddings: list[np.ndarray | None],
    catalogue: Catalogue,
) -> list[float]:
    seen: dict[int, set[int]] = {}
    for user, item in history:
        seen.setdefault(user, set()).add(item)
    ranks = []
    for (user, item), embedding in zip(targets, embeddings, strict=True):
        mine = seen.setdefault(user, set())
        scores = {
            int(i): float(n if embedding is None else np.dot(v, embedding))
            for i, v, n in zip(catalogue.ids, catalogue.vectors, catalogue.counts, strict=True)
        }
        if item not in scores:
            ranks.append(float("inf"))
            continue
        rivals = [score for i, score in scores.items() if i not in mine and i != item]
        ranks.append(sum(s > scores[item] for s in rivals) + sum(s == scores[item] for s in rivals) / 2)
        mine.add(item)
    return ranks


def test_ranks_equal_those_counted_by_hand() -> None:
    rng = np.random.default_rng(1)
    catalogue = _catalogue(30)
    history = [(int(rng.integers(3)), int(rng.integers(100, 135))) for _ in range(20)]
    targets = [(int(rng.integers(3)), int(rng.integers(100, 135))) for _ in range(60)]  # some unknown, some repeated
    embeddings = rng.standard_normal((60, DIM)).astype(np.float32)
    known = rng.random(60) < 0.7
    ranks = target_ranks(_log(history), _log(targets), embeddings, known, catalogue)
    by_hand = _rank_by_hand(
        history, targets, [e if k else None for e, k in zip(embeddings, known, strict=True)], catalogue
    )
    np.testing.assert_allclose(ranks, by_hand)


def test_an_embedding_that_points_at_the_target_ranks_it_first() -> None:
    catalogue = Catalogue(np.arange(DIM), np.eye(DIM, dtype=np.float32), np.ones(DIM, np.int64))
    targets = _log([(0, 2), (1, 3)])
    embeddings = np.eye(DIM, dtype=np.float32)[[2, 0]]
    ranks = target_ranks(_log([]), targets, embeddings, np.array([True, True]), catalogue)
    assert ranks.tolist() == [0, 2]  # the second ties with two others behind the one that it points at


def test_quality_of_known_ranks() -> None:
    measured = quality(np.array([0, 1, 9, 10, np.inf]))
    assert measured.hit_rate_at_10 == pytest.approx(3 / 5)
    assert measured.ndcg_at_10 == pytest.approx((1 + 1 / np.log2(3) + 1 / np.log2(11)) / 5)


def test_items_outside_the_catalogue_have_no_column() -> None:
    catalogue = _catalogue(5)
    columns = catalogue_columns(np.array([99, int(catalogue.ids[3]), 105]), catalogue)
    assert columns.tolist() == [-1, 3, -1]
