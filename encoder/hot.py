"""States that were written lately, kept in this process so that an append need not read 71 KiB from Redis.

Nothing depends on them: a write from a state that is no longer the stored one is refused (encoder/store.py). But they hide what
becomes of the stored slots, so after some writes a state is read, and with that verified, again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from typing import NamedTuple

from encoder.past import Resident
from schemas.state import StateLayout

#: A state whose stored slots were damaged behind our back is seen within so many of its writes. Costs 1/32 of a read per write.
DEFAULT_RECHECK_EVERY = 32


class _Entry(NamedTuple):
    state: Resident
    bytes: int
    writes_left: int


class HotStates:
    """Least recently used states go first when they are more than `max_bytes` together; 0 keeps none."""

    def __init__(self, layout: StateLayout, max_bytes: int, recheck_every: int = DEFAULT_RECHECK_EVERY) -> None:
        self._layout = layout
        self._max_bytes = max_bytes
        self._recheck_every = recheck_every
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self.bytes = 0

    @property
    def keeps_any(self) -> bool:
        return self._max_bytes > 0

    def has_room(self, user: bytes, capacity: int) -> bool:
        """Whether a state of so many slots, or another one of a user who is here, needs nobody to go."""
        return user in self._entries or self.bytes + self._layout.value_bytes(capacity) <= self._max_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, user: bytes) -> Resident | None:
        entry = self._entries.get(user)
        if entry is None:
            return None
        if not entry.writes_left:
            self.drop(user)
            return None
        self._entries.move_to_end(user)
        return entry.state

    def put(self, user: bytes, state: Resident) -> None:
        """Keep what the store holds now: a state that was not here yet, or one of here that has become another."""
        former = self._entries.pop(user, None)
        if former is not None:
            self.bytes -= former.bytes
        left = self._recheck_every if former is None else former.writes_left - 1
        size = self._layout.value_bytes(state.header.capacity)
        self._entries[user] = _Entry(state, size, left)
        self.bytes += size
        while self.bytes > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.bytes -= oldest.bytes

    def drop(self, user: bytes) -> None:
        entry = self._entries.pop(user, None)
        if entry is not None:
            self.bytes -= entry.bytes

    def drop_partitions(self, partitions: Collection[int]) -> None:
        """Forget the users of partitions that are another worker's now."""
        for user in [u for u, e in self._entries.items() if e.state.header.fence.partition in partitions]:
            self.drop(user)
