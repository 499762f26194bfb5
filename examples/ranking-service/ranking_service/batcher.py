"""What many requests ask for at the same time, done together: one round trip to Redis, one run of the graph."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Batcher(Generic[Asked, Answer]):
    """Gathers while the batch before is worked on: batches grow with the load by themselves. Used within one event loop."""

    def __init__(self, work: Callable[[list[Asked]], Awaitable[Sequence[Answer]]], most: int) -> None:
        """
        Args:
            work: answers a batch, in its order. What it raises is raised to everyone in the batch.
            most: the longest batch.
        """
        self._work, self._most = work, most
        self._waiting: deque[tuple[Asked, asyncio.Future[Answer]]] = deque()
        self._some_wait = asyncio.Event()

    async def ask(self, asked: Asked) -> Answer:
        """Whoever stops waiting before the work begins costs it nothing."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, answer))
        self._some_wait.set()
        return await answer

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._some_wait.wait()
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._most))]
            if not self._waiting:
                self._some_wait.clear()
            batch = [(asked, answer) for asked, answer in batch if not answer.done()]
            if not batch:
                continue
            try:
                answers = await self._work([asked for asked, _ in batch])
            except Exception as error:
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), of in zip(batch, answers, strict=True):
                if not answer.done():
                    answer.set_result(of)
