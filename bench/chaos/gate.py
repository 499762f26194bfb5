"""Who may do something to a stage: many at once, or one that needs it for itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """Many may pass, or one may have it for itself."""

    def __init__(self) -> None:
        self._passing = 0
        self._closed = False
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._closed)
            self._passing += 1
        try:
            yield
        finally:
            async with self._changed:
                self._passing -= 1
                self._changed.notify_all()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._closed)
            self._closed = True
            await self._changed.wait_for(lambda: not self._passing)
        try:
            yield
        finally:
            async with self._changed:
                self._closed = False
                self._changed.notify_all()
