"""The same in asyncio, where many requests are under way at once: python read_async.py USER..."""

from __future__ import annotations

import asyncio
import sys

from encoder.bundle import load_bundle
from ranker import AsyncStateReader, Dcat, Request
from schemas.errors import UnavailableError
from slipstream.settings import load_settings


async def main() -> None:
    settings = load_settings(None, {})
    assert settings.redis_url is not None, "set SLIPSTREAM_REDIS_URL"
    bundle = load_bundle(settings.bundle_dir)
    reader = AsyncStateReader(settings.redis_url.get_secret_value(), bundle, settings.names, deadline_ms=1000)
    dcat, one_at_a_time = Dcat.of(bundle), asyncio.Lock()
    candidates = bundle.catalogue_ids[:5]

    async def request(user: str) -> str:
        (row,) = await reader.read([user], max_age_ms=60_000)
        async with one_at_a_time:  # the graph runs in a thread, so that the loop goes on
            (scores,) = await asyncio.to_thread(dcat.score, [Request(row, candidates)])
        best = candidates[scores.score.argmax()]
        return f"{user}: {row.status}, {row.length} events, {row.age_ms} ms old; best of {len(candidates)}: {best}"

    try:
        print(*await asyncio.gather(*map(request, sys.argv[1:])), sep="\n")
    except UnavailableError as error:
        sys.exit(f"rank by popularity meanwhile: {error}")
    finally:
        await reader.close()


asyncio.run(main())
