"""Requests at a steady rate, earlier ones answered or not: `python -m ranking_service.load --rate 200 --seconds 10`."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import aiohttp
import numpy as np
import typer


async def send(url: str, rate: float, seconds: float, users: list[str], candidates: int, items: int) -> None:
    rng = np.random.default_rng(0)
    taken_ms: list[float] = []
    outcomes: Counter[str] = Counter()

    async def one(session: aiohttp.ClientSession, due_s: float) -> None:
        asked = rng.integers(1, items + 1, candidates).tolist()
        try:
            async with session.post(
                "/rank", json={"user": users[rng.integers(len(users))], "candidates": asked}
            ) as reply:
                answer = await reply.json()
                outcome = answer["fallback"] or answer["scored_by"] if reply.status == 200 else f"HTTP {reply.status}"
        except (aiohttp.ClientError, TimeoutError) as error:
            outcome = type(error).__name__
        outcomes[outcome] += 1
        taken_ms.append(1000 * (time.perf_counter() - due_s))  # from when it was due: waiting for a slow service counts

    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(10)) as session, asyncio.TaskGroup() as group:
        began_s = time.perf_counter()
        for i in range(int(rate * seconds)):
            due_s = began_s + i / rate
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            group.create_task(one(session, due_s))
    p50, p99 = np.percentile(taken_ms, (50, 99))
    result = {"requests": len(taken_ms), "ms_p50": round(p50, 2), "ms_p99": round(p99, 2), "outcomes": dict(outcomes)}
    print(json.dumps(result))


def main(
    url: Annotated[str, typer.Option()] = "http://127.0.0.1:8080",
    rate: Annotated[float, typer.Option(min=0.1, help="Requests per second")] = 100.0,
    seconds: Annotated[float, typer.Option(min=0.1)] = 10.0,
    user_file: Annotated[Path | None, typer.Option(help="One id a line [default: u-1 to u-1000]")] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Of a request")] = 128,
    items: Annotated[int, typer.Option(min=1, help="Candidates are drawn from the ids 1 to this")] = 1000,
) -> None:
    """Prints one JSON object: percentiles from when a request was due to its answer, and what scored how many."""
    users = [f"u-{i}" for i in range(1, 1001)] if user_file is None else user_file.read_text().split()
    asyncio.run(send(url, rate, seconds, users, candidates, items))


if __name__ == "__main__":
    typer.run(main)
