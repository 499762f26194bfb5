"""Retrieval against a plain sort, and ranked lists for users in every condition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.dcat import Request
from ranker.rank import Catalogue, rank_given, rank_row, retrieve, retrieve_popular
from ranker.rows import Row, Status
from tests.ranker.conftest import Model


def made_catalogue(n: int, seed: int, d: int = 8) -> Catalogue:
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-2, 3, (n, d)).astype(np.float32)  # few values: ties are common
    return Catalogue(np.sort(rng.choice(10 * n + 1, n, replace=False)), vectors, rng.integers(0, 4, n))


@given(st.integers(0, 60), st.integers(0, 70), st.integers(0, 1000), st.sets(st.integers(0, 600), max_size=80))
def test_retrieval_is_a_plain_sort(n: int, k: int, seed: int, exclude: set[int]) -> None:
    catalogue = made_catalogue(n, seed)
    embedding = np.random.default_rng(seed).integers(-3, 4, 8).astype(np.float16)
    excluded = np.array(sorted(exclude), np.int64)
    for got, scores in (
        (retrieve(embedding, catalogue, k, excluded), catalogue.vectors @ embedding.astype(np.float32)),
        (retrieve_popular(catalogue, k, excluded), catalogue.counts),
    ):
        plain = sorted(
            (-float(score), int(item))
            for item, score in zip(catalogue.ids, scores, strict=True)
            if int(item) not in exclude
        )[:k]
        assert got.items.tolist() == [item for _, item in plain]
        assert got.scores.tolist() == [-score for score, _ in plain]


def present(model: Model, seed: int, length: int, status: Status = Status.PRESENT) -> Row:
    state = model.state(seed, length)
    return Row("u-17", status, 250, length, state.header.embedding, state)


@pytest.mark.parametrize("status", [Status.PRESENT, Status.STALE])
def test_a_user_with_a_state(model: Model, status: Status) -> None:
    dcat, catalogue = model.dcat(), Catalogue.of(model.bundle)
    row = present(model, 1, 40, status)
    ranking = rank_row(row, dcat, catalogue, k=10, candidates=50)
    assert (ranking.user, ranking.status, ranking.age_ms, ranking.length) == ("u-17", status, 250, 40)
    assert ranking.retrieval == "embedding"
    assert row.state is not None
    seen = set(row.state.events["item_id"].tolist())
    assert len({item.item_id for item in ranking.items}) == 10
    assert not seen & {item.item_id for item in ranking.items}
    assert [item.score for item in ranking.items] == sorted((item.score for item in ranking.items), reverse=True)
    # The list is the best of what was retrieved, by the crossing's own scores.
    retrieved = retrieve(row.state.header.embedding, catalogue, 50, np.array(sorted(seen)))
    (crossed,) = dcat.score([Request(row, retrieved.items)])
    assert [item.item_id for item in ranking.items] == retrieved.items[np.argsort(-crossed.score)[:10]].tolist()
    by_id = dict(zip(retrieved.items.tolist(), retrieved.scores.tolist(), strict=True))
    assert all(item.retrieval_score == by_id[item.item_id] for item in ranking.items)


def test_seen_items_come_back_if_asked_for(model: Model) -> None:
    row = present(model, 1, 200)
    catalogue = Catalogue.of(model.bundle)
    everything = rank_row(row, model.dcat(), catalogue, k=1000, exclude_seen=False)
    unseen = rank_row(row, model.dcat(), catalogue, k=1000)
    assert row.state is not None
    seen = set(row.state.events["item_id"].tolist()) & set(catalogue.ids.tolist())
    assert len(everything.items) == len(catalogue.ids)
    assert len(unseen.items) == len(catalogue.ids) - len(seen)


@pytest.mark.parametrize(
    "row",
    [Row("new", Status.NOT_FOUND, why="no state"), Row("hurt", Status.INVALID, why="the checksum does not match")],
)
def test_a_user_without_a_state_gets_what_is_popular(model: Model, row: Row) -> None:
    catalogue = Catalogue.of(model.bundle)
    ranking = rank_row(row, model.dcat(), catalogue, k=5, candidates=20)
    assert (ranking.status, ranking.age_ms, ranking.why) == (row.status, None, row.why)
    assert ranking.retrieval == "popularity"
    assert {item.item_id for item in ranking.items} <= set(retrieve_popular(catalogue, 20).items.tolist())
    assert [item.score for item in ranking.items] == sorted((item.score for item in ranking.items), reverse=True)


def test_candidates_of_ones_own_choice(model: Model) -> None:
    for row in (present(model, 1, 40), Row("new", Status.NOT_FOUND)):
        ranking = rank_given(row, model.dcat(), np.array([7, 1 << 60, 9, 7]), k=2)
        (crossed,) = model.dcat().score([Request(row, np.array([7, 9, 1 << 60]))])
        best = np.array([7, 9, 1 << 60])[np.argsort(-crossed.score)[:2]]
        assert [item.item_id for item in ranking.items] == best.tolist()
        assert ranking.retrieval == "given"


def test_a_catalogue_smaller_than_the_list(model: Model) -> None:
    row = present(model, 1, 5)
    empty = Catalogue(np.empty(0, np.int64), np.empty((0, 64), np.float32), np.empty(0, np.int64))
    assert rank_row(row, model.dcat(), empty, k=5).items == []
    assert rank_row(row, model.dcat(), Catalogue.of(model.bundle), k=0, candidates=0).items == []
