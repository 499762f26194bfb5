"""A log simulated into a real Redis: the same states as in memory, and a ranker reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from encoder.store_memory import MemoryStateStore
from encoder.store_redis import RedisStateStore
from ranker.reader import StateReader
from ranker.rows import Status
from schemas.names import Names
from schemas.state import decode_state
from slipstream.simulate import SimulateConfig, simulate
from tests.bundles import random_bundle
from tests.slipstream.test_simulate import contents, made_log

pytestmark = pytest.mark.integration


def test_states_in_redis_are_those_in_memory(redis_client: redis.Redis, prefix: str, tmp_path: Path) -> None:
    bundle, log, names = random_bundle(tmp_path / "bundle", "nano"), made_log(800, 12), Names(prefix)
    memory = MemoryStateStore(bundle.layout)
    config = SimulateConfig(topic_id=bytes(16))
    simulate(log, bundle, memory, 25, config)
    store = RedisStateStore(redis_client, names, bundle.layout, ttl_s=600)
    report = simulate(log, bundle, store, 25, config)
    want = contents(memory)
    assert report.states == len(want)
    rows = StateReader(redis_client, bundle, names).read(log.users)
    assert {row.status for row in rows} <= {Status.PRESENT, Status.NOT_FOUND}
    got = {
        row.user.encode(): (row.state.slots.tobytes(), row.state.header.embedding.tobytes())
        for row in rows
        if row.state is not None
    }
    assert got == want
    for row in rows:
        in_memory = memory.values.get(row.user.encode())
        if in_memory is not None and row.state is not None:
            other = decode_state(in_memory, bundle.layout)
            assert other is not None
            assert row.state.header[3:10] == other.header[3:10], "fence, lengths and times agree too"
