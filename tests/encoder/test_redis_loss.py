"""What a worker may commit while Redis is in trouble. Run alone: pytest tests/encoder/test_redis_loss.py"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import redis
from prometheus_client import CollectorRegistry

from encoder.metrics import EncodeMetrics
from encoder.models_redis import activate_model, active_model
from encoder.redis_loss import LossWatch
from encoder.redis_progress import Lost, RedisProgress
from encoder.redis_watch import RedisWatch
from schemas.names import Names

MODEL, TOPIC = "0123456789abcdef", bytes(range(16))


class Rig:
    def __init__(self, client: redis.Redis, names: Names) -> None:
        self.client, self.names = client, names
        self.registry = CollectorRegistry()
        self.watch = LossWatch(RedisProgress(client, names, MODEL, TOPIC), EncodeMetrics(self.registry))

    def losses(self, extent: str) -> float:
        return self.registry.get_sample_value("slipstream_encode_redis_losses_total", {"extent": extent}) or 0.0

    def flush(self) -> None:
        for key in self.client.scan_iter(f"{self.names.prefix}:*"):
            self.client.delete(key)


@pytest.fixture
def rig(redis_client: redis.Redis, prefix: str) -> Iterator[Rig]:
    made = Rig(redis_client, Names(prefix))
    yield made
    made.flush()


def test_what_is_in_states_may_be_committed(rig: Rig) -> None:
    rig.watch.gained({0: None, 1: 7})
    assert rig.watch.lost == {}, "not asked yet"
    rig.client.set(rig.names.progress_key(MODEL, 1), TOPIC + (9).to_bytes(8, "little"))
    assert rig.watch.may_commit({0: 5, 1: 8}) == {0, 1}
    assert rig.watch.may_commit({}) == set()
    assert rig.watch.lost == {}


def test_a_loss_keeps_its_partition_from_being_committed_until_it_is_read_again(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.watch.gained({0: None, 1: None})
    rig.watch.may_commit({0: 5, 1: 8})
    rig.client.delete(rig.names.progress_key(MODEL, 1))
    with caplog.at_level(logging.ERROR):
        assert rig.watch.may_commit({0: 6, 1: 9}) == {0}
    assert "lost states of partition 1 that were written before offset 8" in caplog.text
    assert rig.watch.may_commit({1: 10}) == set()
    assert rig.watch.lost == {1: Lost(0, 8)}
    rig.watch.reads_again(1)
    assert rig.watch.may_commit({1: 2}) == {1}
    assert (rig.losses("everything"), rig.losses("newest")) == (1, 0)


def test_a_loss_while_nobody_was_there_is_found_with_the_first_look(rig: Rig) -> None:
    rig.watch.gained({0: 5, 1: 5})
    rig.client.set(rig.names.progress_key(MODEL, 1), TOPIC + (3).to_bytes(8, "little"))
    assert rig.watch.may_commit({0: 6}) == set()
    assert rig.watch.lost == {0: Lost(0, 5), 1: Lost(3, 5)}
    rig.watch.forget([0])
    assert rig.watch.lost == {1: Lost(3, 5)}
    assert (rig.losses("everything"), rig.losses("newest")) == (1, 1)


def test_a_full_redis_lets_nothing_be_committed_and_a_partition_that_went_is_forgotten(rig: Rig) -> None:
    rig.watch.gained({0: None, 1: None})
    rig.client.config_set("maxmemory", 1)
    try:
        assert rig.watch.may_commit({0: 5}) == set()
        rig.watch.forget([1])
    finally:
        rig.client.config_set("maxmemory", 0)
    assert rig.watch.may_commit({0: 5}) == {0}
    assert rig.client.get(rig.names.progress_key(MODEL, 1)) is None


@pytest.mark.parametrize("restores", [True, False])
def test_the_active_model_is_named_again_and_never_replaced(rig: Rig, restores: bool) -> None:
    client, names = rig.client, rig.names
    watch = RedisWatch("redis://unused", names, lambda reason: None, restores)
    watch.look(client)
    assert active_model(client, names) is None, "nobody named one"
    activate_model(client, names, "aa")
    watch.look(client)
    activate_model(client, names, "bb")
    watch.look(client)
    rig.flush()
    watch.look(client)
    assert active_model(client, names) == ("bb" if restores else None)
