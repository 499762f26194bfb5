"""A ranking service's process, which lives as long as a soak: it reads states and crosses them, whatever happens to Redis.

`python -m bench.soak.ranker JSON`. Told to end, it prints what it saw as one JSON object.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import redis.asyncio

from encoder.bundle import Bundle, load_bundle
from ranker.async_reader import AsyncStateReader
from ranker.dcat import Dcat, Request
from ranker.reader import StateReader
from ranker.rows import Row, Status
from schemas.errors import UnavailableError
from schemas.names import Names

_EVERY_S = 0.2
_USERS, _CANDIDATES = 20, 16
#: Longer than a ranking service's: everything else runs on the same cores.
_DEADLINE_MS = 1000
_NEW_USERS_EVERY = 25


class Told(msgspec.Struct):
    """What it is told: where states are and of which model; `bundle`: the model's directory."""

    redis_url: str
    prefix: str
    bundle: str


async def serve(told: Told) -> dict[str, int]:
    """Reads until SIGTERM; how many requests, rows by status, and requests that failed since Redis was away."""
    names, bundle = Names(told.prefix), load_bundle(Path(told.bundle))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    reader = StateReader(told.redis_url, bundle, names, deadline_ms=_DEADLINE_MS)
    async_reader = AsyncStateReader(told.redis_url, bundle, names, deadline_ms=_DEADLINE_MS)
    dcat, rng = Dcat.of(bundle), np.random.default_rng(0)
    users: list[str] = []
    seen = Counter({"requests": 0, "crossed": 0, "unavailable": 0, **dict.fromkeys(map(str, Status), 0)})
    while not stop.is_set():
        try:
            if seen["requests"] % _NEW_USERS_EVERY == 0:
                users = await _users(told.redis_url, names, bundle)
            some = [users[i] for i in rng.integers(0, len(users), _USERS)] if users else ["nobody"]
            rows = await async_reader.read(some)
            rows += await asyncio.to_thread(reader.read, some, embedding_only=True)
            seen.update(str(row.status) for row in rows)
            seen["crossed"] += await asyncio.to_thread(_cross, dcat, rows, rng)
        except (UnavailableError, redis.RedisError):
            seen["unavailable"] += 1
        seen["requests"] += 1
        try:
            await asyncio.wait_for(stop.wait(), _EVERY_S)
        except TimeoutError:
            continue
    reader.close()
    await async_reader.close()
    return dict(seen)


def _cross(dcat: Dcat, rows: list[Row], rng: np.random.Generator) -> int:
    """Users who were crossed with some candidates."""
    requests = [Request(row, rng.integers(1, 1 << 40, _CANDIDATES)) for row in rows if row.state is not None]
    return len(dcat.score(requests[:4])) if requests else 0


async def _users(url: str, names: Names, bundle: Bundle) -> list[str]:
    """Whoever has a state, or is known as deleted."""
    before = len(names.state_key(bundle.model_id, b""))
    async with redis.asyncio.from_url(url, socket_timeout=1) as client:
        keys = client.scan_iter(match=names.state_key_pattern(bundle.model_id), count=1000)
        return [key[before:].decode() async for key in keys]


if __name__ == "__main__":
    found = asyncio.run(serve(msgspec.json.decode(sys.argv[1], type=Told)))
    print(msgspec.json.encode(found).decode(), flush=True)
