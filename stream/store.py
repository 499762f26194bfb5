"""The sequences of one partition, in memory: what its changelog says, keyed by user.

Memory per user: the value (16 + 20 bytes a record), the key, and about 170 bytes of Python's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from schemas.sequence import HEADER_BYTES


class PartitionTable:
    """A plain dict with a side index of forgotten users' markers: values without records, which expire one day."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._marked_ms: dict[bytes, int] = {}  # user of a marker -> when it was written, the changelog record's time

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, user: object) -> bool:
        return user in self._values

    def get(self, user: bytes) -> bytes | None:
        return self._values.get(user)

    def get_many(self, users: Sequence[bytes]) -> list[bytes | None]:
        return list(map(self._values.get, users))

    def put(self, user: bytes, value: bytes | None, written_ms: int) -> None:
        """Sets a user's value; None, a tombstone, removes the user."""
        if value is None:
            self._values.pop(user, None)
            self._marked_ms.pop(user, None)
            return
        self._values[user] = value
        if len(value) == HEADER_BYTES:
            self._marked_ms[user] = written_ms
        elif self._marked_ms:
            self._marked_ms.pop(user, None)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self._values.items())

    def expired_markers(self, before_ms: int) -> list[bytes]:
        """Users of whom nothing but a marker written before `before_ms` is left."""
        return [user for user, written_ms in self._marked_ms.items() if written_ms < before_ms]
