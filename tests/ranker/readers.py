"""The asyncio reader for tests that are not asynchronous."""

from __future__ import annotations

import asyncio
from typing import Any

from ranker.async_reader import AsyncStateReader
from ranker.metrics import ReaderMetrics
from ranker.rows import Row


class Blocking:
    """An `AsyncStateReader` driven from synchronous tests."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._reader = AsyncStateReader(*args, **kwargs)

    def read(self, *args: Any, **kwargs: Any) -> list[Row]:
        return self._loop.run_until_complete(self._reader.read(*args, **kwargs))

    def require_active(self) -> None:
        self._loop.run_until_complete(self._reader.require_active())

    @property
    def model_id(self) -> str | None:
        return self._reader.model_id

    @property
    def metrics(self) -> ReaderMetrics:
        return self._reader.metrics

    def close(self) -> None:
        self._loop.run_until_complete(self._reader.close())
        self._loop.close()
