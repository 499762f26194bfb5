"""Crosses the candidates of whatever requests wait, together: `ranker.Dcat` has one caller at a time, and likes batches."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ranker import Dcat, Request, Row

_MAX_REQUESTS = 32


class Scorer:
    """Used within one event loop. The graph runs on a thread of its own, and the loop goes on meanwhile."""

    def __init__(self, dcat: Dcat) -> None:
        self._dcat = dcat
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scorer")
        self._waiting: deque[tuple[Request, asyncio.Future[NDArray[np.float32]]]] = deque()
        self._some_wait = asyncio.Event()

    async def score(self, row: Row, candidates: NDArray[np.int64]) -> NDArray[np.float32]:
        """`(C,)` scores. Whoever stops waiting before the graph runs costs it nothing."""
        answer: asyncio.Future[NDArray[np.float32]] = asyncio.get_running_loop().create_future()
        self._waiting.append((Request(row, candidates), answer))
        self._some_wait.set()
        return await answer

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._some_wait.wait()
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MAX_REQUESTS))]
            if not self._waiting:
                self._some_wait.clear()
            batch = [(request, answer) for request, answer in batch if not answer.done()]
            try:
                scores = await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._dcat.score, [request for request, _ in batch]
                )
            except Exception as error:  # whatever the runtime raises: the requests fall back, the service goes on
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), of in zip(batch, scores, strict=True):
                if not answer.done():
                    answer.set_result(of.score)

    def close(self) -> None:
        self._thread.shutdown()
