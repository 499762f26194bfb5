"""A Redis Cluster of which one master lost what was written: the others' marks do not hide it."""

from __future__ import annotations

import subprocess

import pytest
import redis

from encoder.redis_progress import Lost, RedisProgress
from schemas.names import Names
from tests.integration.test_reader_cluster import cluster, nodes

__all__ = ["cluster", "nodes"]  # fixtures

pytestmark = pytest.mark.integration

MODEL, TOPIC = "0123456789abcdef", bytes(range(16))


@pytest.mark.parametrize("number", range(3))
def test_a_loss_of_any_master_is_noticed(
    cluster: redis.RedisCluster,
    nodes: list[tuple[int, subprocess.Popen[bytes]]],
    number: int,
) -> None:
    def open_it() -> RedisProgress:
        return RedisProgress(cluster, Names("p"), MODEL, TOPIC)

    progress = open_it()
    assert progress.begin({0: None, 1: 7}) == {1: Lost(0, 7)}
    assert progress.advance({0: 50, 1: 60}) == {}
    assert progress.advance({}) == {}
    with redis.Redis(port=nodes[number][0]) as master:
        master.flushall()
        assert progress.advance({0: 70}) == {0: Lost(0, 50), 1: Lost(0, 60)}
        assert progress.advance({0: 20, 1: 80}) == {}
        master.flushall()
    assert open_it().begin({0: 20, 1: 80}) == {0: Lost(0, 20), 1: Lost(0, 80)}
    assert open_it().begin({0: 0, 1: None}) == {}
