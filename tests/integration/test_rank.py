"""A ranker from Redis to its list: read, retrieve, cross."""

from __future__ import annotations

import numpy as np
import pytest
import redis

from encoder.runtime import Runtime, RuntimeConfig
from ranker.dcat import Request
from ranker.rank import Catalogue, rank_user
from ranker.reader import StateReader
from ranker.rows import Status
from schemas.names import Names
from tests.bundles import random_bundle
from tests.ranker.conftest import Model

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    bundle = random_bundle(tmp_path_factory.mktemp("rank") / "bundle", "nano")
    return Model(bundle, Runtime(bundle, RuntimeConfig()))


def test_a_list_for_every_user_whatever_redis_holds(redis_client: redis.Redis, prefix: str, model: Model) -> None:
    names = Names(prefix)

    def put(user: str, value: bytes) -> None:
        redis_client.set(names.state_key(model.bundle.model_id, user.encode()), value, px=600_000)

    fresh, hurt = model.state(1, 40), model.state(2, 9)
    put("fresh", model.value(fresh))
    put("hurt", model.value(hurt)[:1000])
    now_ms = fresh.header.arrived_ms + 70
    reader = StateReader(redis_client, model.bundle, names, now_ms=lambda: now_ms)
    dcat, catalogue = model.dcat(), Catalogue.of(model.bundle)

    ranking = rank_user(reader, dcat, catalogue, "fresh", k=7, max_age_ms=100)
    assert (ranking.status, ranking.age_ms, ranking.length, len(ranking.items)) == (Status.PRESENT, 70, 40, 7)
    (direct,) = dcat.score([Request(fresh, np.array([item.item_id for item in ranking.items]))])
    np.testing.assert_allclose([item.score for item in ranking.items], direct.score, atol=2e-6)
    assert rank_user(reader, dcat, catalogue, "fresh", max_age_ms=50).status is Status.STALE
    for user, status in (("hurt", Status.INVALID), ("nobody", Status.NOT_FOUND)):
        ranking = rank_user(reader, dcat, catalogue, user, k=7)
        assert (ranking.status, ranking.retrieval, len(ranking.items)) == (status, "popularity", 7)


def test_a_batch_of_users_is_read_and_crossed_together(redis_client: redis.Redis, prefix: str, model: Model) -> None:
    names, users = Names(prefix), [f"u{i}" for i in range(12)]
    for i, user in enumerate(users[:-2]):
        key = names.state_key(model.bundle.model_id, user.encode())
        redis_client.set(key, model.value(model.state(i, 3 + 20 * i)), px=600_000)
    rows = StateReader(redis_client, model.bundle, names).read(users)
    requests = [Request(row, np.arange(1, 30)) for row in rows]
    for i, scores in enumerate(model.dcat().score(requests)):
        state = model.state(i, 3 + 20 * i) if i < 10 else None
        (alone,) = model.dcat().score([Request(state, np.arange(1, 30))])
        np.testing.assert_allclose(scores.hidden, alone.hidden, atol=2e-6)
