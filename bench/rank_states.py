"""A model with random weights, and states of it that the encoder made and wrote to Redis."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.events import random_records, user_key
from bench.models import random_bundle
from encoder.bundle import Bundle
from encoder.engine import Engine, Update
from encoder.hot import HotStates
from encoder.refresh import Refresher
from encoder.runtime import Runtime, RuntimeConfig
from encoder.store_redis import RedisStateStore, connect
from schemas.names import Names
from schemas.sequence import Records
from schemas.state import Fence

_FIRST_MS, _GAP_MS = 1_600_000_000_000, 600_000
_BATCH = 64


@dataclass(frozen=True)
class Ranked:
    """
    Attributes:
        users: ids, those of whoever reads.
        windows: what their states are of, each as long as leaves room for one candidate in the context.
    """

    bundle: Bundle
    runtime: Runtime
    redis_url: str
    names: Names
    users: list[str]
    windows: list[Records]


def write_states(redis_url: str, names: Names, directory: Path, preset: str, users: int) -> Ranked:
    """Encode `users` histories and write their states, as a worker does."""
    bundle = random_bundle(directory, preset)
    runtime = Runtime(bundle, RuntimeConfig())
    rng = np.random.default_rng(0)
    windows = [random_records(bundle.shape.context - 1, _FIRST_MS, _GAP_MS, rng) for _ in range(users)]
    store = RedisStateStore(connect(redis_url), names, bundle.layout)
    engine = Engine(Refresher(runtime, bundle.features, bundle.layout), store, HotStates(bundle.layout, 0))
    for first in range(0, users, _BATCH):
        batch = range(first, min(first + _BATCH, users))
        arrived_ms = int(windows[first]["timestamp_ms"][-1])
        engine.refresh([Update(user_key(i), windows[i], Fence(bytes(16), 0, i), arrived_ms) for i in batch])
    return Ranked(bundle, runtime, redis_url, names, [user_key(i).decode() for i in range(users)], windows)
