"""What the benches of states stand on, small: the whole path under load, and encoders that are shown records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.encoders import Encoders
from bench.events import random_records, user_key
from bench.live import LiveConfig, live_path
from bench.models import random_bundle
from bench.path import Lab
from bench.sending import steadily
from encoder.store_redis import connect
from schemas.names import Names
from slipstream.stack import Stack
from stream.topics import create_topics

pytestmark = pytest.mark.integration


@pytest.fixture
def lab(stack: Stack, tmp_path: Path) -> Iterator[Lab]:
    """With a database of its own: a bench empties its Redis."""
    own = replace(stack, redis_url=stack.redis_url.removesuffix("/0") + "/9")
    yield Lab(own, tmp_path)
    with connect(own.redis_url) as client:
        client.flushdb()


def test_what_is_sent_is_found_in_states_each_event_once(lab: Lab) -> None:
    said: list[str] = []
    with live_path(LiveConfig("nano", 60, (193, 256), partitions=2), lab, said.append) as path:
        steady = path.send(steadily(20, 3))
        backlog = path.backlog(60)
    for passage in (steady, backlog):  # 60 events, each of another user
        assert passage.events == len(passage.took_ms) == sum(passage.kinds.values()) == 60
        assert (passage.took_ms >= 0).all()
        assert (passage.arrived_ms >= passage.began_ms - 1000).all()
        assert set(passage.cpu_s) == {"ingest", "sequence", "encode", "redis"}
        assert passage.kinds["append"] > 50
    assert set(steady.cores) == {"ingest", "sequence", "encode"}
    with connect(lab.stack.redis_url) as client:
        assert client.dbsize() == 0, "nothing is left behind"
    assert said == ["first states of 60 users"]


def test_a_round_is_charged_with_what_its_records_came_to(lab: Lab, prefix: str, tmp_path: Path) -> None:
    names, bundle = Names(prefix), random_bundle(tmp_path / "model", "nano")
    create_topics(lab.kafka, names, 2)
    rng = np.random.default_rng(0)
    histories = {user_key(i): random_records(20, 1_600_000_000_000, 1000, rng) for i in range(30)}
    with Encoders(lab, names, bundle, 2, tmp_path).started(1, {}) as show:
        cold = show([(user, records[:19]) for user, records in histories.items()])
        steady = show(list(histories.items()))
    assert (cold.records, cold.kinds) == (30, {"full": 30})
    assert (steady.records, steady.kinds) == (30, {"append": 30})
    assert "run" in steady.parts
    assert "wait" not in steady.parts
    assert 0 < steady.overhead_share < 1
