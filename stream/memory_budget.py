"""Memory that several tasks of one event loop share: who wants more than is left waits for the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class MemoryBudget:
    """`total_bytes` at once; one task alone may have more, or it would wait for ever."""

    def __init__(self, total_bytes: int) -> None:
        self._total = total_bytes
        self._held = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def held(self, size_bytes: int) -> AsyncIterator[None]:
        """Holds so much until the context is left."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._held or self._held + size_bytes <= self._total)
            self._held += size_bytes
        try:
            yield
        finally:
            self._held -= size_bytes
            async with self._changed:
                self._changed.notify_all()
