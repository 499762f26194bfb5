"""One partition's packed batches that wait for their transaction: bounded, so that a slow broker stops the reading."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from stream.dead_letters import Headers, Provenance

#: Batches that may wait, by number and by bytes; then `put` waits, and Faust stops fetching.
MAX_QUEUED = 64
MAX_QUEUED_BYTES = 8 << 20


class Pending(NamedTuple):
    """A message of `engagement-batches` that waits. `ack` marks it as done, `drop` as not taken."""

    provenance: Provenance
    key: bytes | None
    value: bytes | None
    headers: Headers
    ack: Callable[[], None]
    drop: Callable[[], None]

    @property
    def size_bytes(self) -> int:
        return len(self.value or b"")


class BatchQueue:
    """Oldest first.

    Attributes:
        discarding: what is put is given back at once.
    """

    def __init__(self) -> None:
        self._waiting: deque[Pending] = deque()
        self._bytes = 0
        self._space = asyncio.Event()
        self.discarding = False

    def __bool__(self) -> bool:
        return bool(self._waiting)

    async def put(self, pending: Pending) -> None:
        """Waits while the queue is full."""
        while not self.discarding and (len(self._waiting) >= MAX_QUEUED or self._bytes >= MAX_QUEUED_BYTES):
            self._space.clear()
            await self._space.wait()
        if self.discarding:
            pending.drop()
            return
        self._waiting.append(pending)
        self._bytes += pending.size_bytes

    def take(self) -> list[Pending]:
        """All that waits."""
        taken = list(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        self._space.set()
        return taken

    def put_back(self, taken: Sequence[Pending]) -> None:
        """The last of what was just taken, at the head again."""
        self._waiting.extendleft(reversed(taken))
        self._bytes += sum(pending.size_bytes for pending in taken)

    def discard(self) -> None:
        """Give back what waits, and what comes, until `discarding` is set to False."""
        self.discarding = True
        for pending in self.take():
            pending.drop()
