"""Which source offsets may be committed: those of passes whose every message was delivered, and of all passes before them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class Pass:
    """One pass of ingest's loop: the offsets that follow what it read, by partition, and how many messages are under way."""

    __slots__ = ("next_offsets", "undelivered")

    def __init__(self, next_offsets: dict[int, int]) -> None:
        self.next_offsets = next_offsets
        self.undelivered = 0


class InFlight:
    """Passes in the order in which they were read."""

    def __init__(self) -> None:
        self._passes: deque[Pass] = deque()

    def __len__(self) -> int:
        return len(self._passes)

    def begin(self, next_offsets: dict[int, int]) -> Pass:
        """A new pass. Count its messages in `undelivered` before the next call of `settle`."""
        begun = Pass(next_offsets)
        self._passes.append(begun)
        return begun

    def settle(self) -> dict[int, int]:
        """Takes the delivered passes off the front; the next offsets that are now safe to commit."""
        safe: dict[int, int] = {}
        while self._passes and not self._passes[0].undelivered:
            safe |= self._passes.popleft().next_offsets
        return safe

    def forget(self, partitions: Iterable[int]) -> None:
        """The partitions are another worker's now: their offsets are not ours to commit any more."""
        for partition in partitions:
            for begun in self._passes:
                begun.next_offsets.pop(partition, None)
