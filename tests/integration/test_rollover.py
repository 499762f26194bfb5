"""Rolling over to another model on real Kafka and Redis, with encoders of both at work.

Run: pytest tests/integration/test_rollover.py
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge.kafka import KafkaConfig
from encoder.store_redis import connect
from ranker.reader import StateReader
from ranker.rows import Status
from schemas.errors import ConfigError, FencedError, UnavailableError
from schemas.names import Names
from schemas.sequence import Records
from slipstream.rollover import Models, ModelStatus
from tests.encoder.histories import events
from tests.encoder.models import Model, small_model
from tests.integration.encoding import Changelog, encoder, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Model]:
    directory = tmp_path_factory.mktemp("models")
    return small_model(directory / "old", seed=0), small_model(directory / "new", seed=1)


@pytest.fixture
def models(changelog: Changelog, kafka_bootstrap: str, redis_url: str) -> Models:
    return Models(KafkaConfig(kafka_bootstrap), connect(redis_url), changelog.names)


def users(n: int, last_ms: int) -> dict[bytes, Records]:
    return {b"user-%d" % i: events([1000, 2000, last_ms + i], seed=i) for i in range(n)}


def test_two_models_side_by_side_switch_back_and_retire(
    two: tuple[Model, Model], models: Models, changelog: Changelog, redis_url: str, tmp_path: Path
) -> None:
    old, new = two
    first, second = old.bundle.model_id, new.bundle.model_id
    follower = StateReader(redis_url, None, changelog.names)
    changelog.write(users(40, 5000))
    with encoder(old, changelog, redis_url, tmp_path / "old.log") as worker:
        changelog.wait_for(old)
        assert models.status() == [ModelStatus(first, True, 1, 0)]
        with pytest.raises(ConfigError, match=f"no encoder of model {second} ever ran"):
            models.activate(second, 0)

        with encoder(new, changelog, redis_url, tmp_path / "new.log") as newcomer:
            changelog.wait_for(new)
            assert [row.status for row in follower.read(["user-1"])] == [Status.PRESENT]
            assert follower.model_id == first, "a second model's encoders change nothing for rankers"
            changelog.write(users(40, 9000))
            assert models.activate(second, 60) == first
            assert changelog.mismatches(new, redis_url) == [], "it holds all that was written before"
            assert {status.model_id: status.active for status in models.status()} == {second: True, first: False}
            # A reader keeps to its model until it asks: never a mixture.
            assert follower.read(["user-1"])[0].status is Status.PRESENT
            assert follower.model_id == first
            with pytest.raises(ConfigError, match=f"names model {second}"):
                follower.require_active()

            assert models.activate(first, 60) == second, "and back"
            follower.require_active()
            assert models.activate(second, 60) == first
            with pytest.raises(ConfigError, match="activate another one first"):
                models.retire(second, lambda done: None)
            with pytest.raises(FencedError, match=f"1 encoders of model {first} run"):
                models.retire(first, lambda done: None)
            assert worker.terminate() == 0

            told: list[int] = []
            wait_until("the group is empty", lambda: _members(models, first) == 0)
            assert models.retire(first, told.append) == 40
            assert told[-1] == 40
            assert [status.model_id for status in models.status()] == [second]
            with connect(redis_url) as client:
                assert not list(client.scan_iter(match=changelog.names.state_key_pattern(first)))
            assert changelog.mismatches(new, redis_url) == [], "the other model's states stay"
            assert models.retire(first, told.append) == 0, "it can be called again"
            assert newcomer.terminate() == 0


def test_an_encoder_that_is_only_just_started_is_waited_for(
    two: tuple[Model, Model], models: Models, changelog: Changelog, redis_url: str, tmp_path: Path
) -> None:
    old, _ = two
    changelog.write(users(5, 5000))
    with ThreadPoolExecutor(1) as aside:
        activated = aside.submit(models.activate, old.bundle.model_id, 60)
        with encoder(old, changelog, redis_url, tmp_path / "log", publish_active=False):
            assert activated.result() is None
            assert changelog.mismatches(old, redis_url) == []
    assert [(status.model_id, status.active) for status in models.status()] == [(old.bundle.model_id, True)]


def test_a_model_that_lags_is_not_activated(
    two: tuple[Model, Model], models: Models, changelog: Changelog, redis_url: str, tmp_path: Path
) -> None:
    old, _ = two
    changelog.write(users(5, 5000))
    with encoder(old, changelog, redis_url, tmp_path / "log", publish_active=False) as worker:
        changelog.wait_for(old)
        assert worker.terminate() == 0
    changelog.write(users(5, 9000))
    # A transaction's end shows a moment after its commit was answered.
    wait_until("the new records are there", lambda: bool(models.status()[0].lag))
    with pytest.raises(UnavailableError, match=r"is still .* offsets .* behind"):
        models.activate(old.bundle.model_id, 0.5)
    (status,) = models.status()
    assert (status.active, status.encoders) == (False, 0)
    assert (status.lag or 0) > 0


@pytest.mark.parametrize("wrong", ["active", "../x", "0123456789ABCDEF", "*"])
def test_what_is_no_model_id_is_refused(kafka_bootstrap: str, redis_url: str, prefix: str, wrong: str) -> None:
    """A pattern must not delete another model's states."""
    models = Models(KafkaConfig(kafka_bootstrap), connect(redis_url), Names(prefix))
    with pytest.raises(ConfigError, match="is no model id"):
        models.retire(wrong, lambda done: None)


def _members(models: Models, model_id: str) -> int:
    return next(status.encoders for status in models.status() if status.model_id == model_id)
