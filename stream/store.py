"""The sequences of one partition, as its changelog says them, keyed by user: what every store can do, and the one in memory.

Memory per user: the value (16 + 20 bytes a record), the key, and about 135 bytes of Python's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

from schemas.sequence import HEADER_BYTES


class PartitionTable(ABC):
    """One partition's sequences. For one thread at a time, save for `len` and `close`."""

    #: Whether calls may wait for a disk: such a table is called off the event loop.
    blocks: ClassVar[bool]

    @abstractmethod
    def __len__(self) -> int:
        """Users, those of whom a marker is left included. A table on disk estimates."""

    @abstractmethod
    def get_many(self, users: Sequence[bytes]) -> list[bytes | None]:
        """The users' values, None for a user without one."""

    @abstractmethod
    def put_many(
        self,
        writes: Iterable[tuple[bytes, bytes | None, int]],
        next_offset: int | None = None,
        as_of_ms: int | None = None,
    ) -> None:
        """Set users' values as committed changelog records do.

        Args:
            writes: user, value (None, a tombstone, removes the user), and when the record was written.
            next_offset: all records of the changelog before it are in the table with these writes; None = not known, no change.
            as_of_ms: no record at `next_offset` or later was written before this time; None = no change.
        """

    @abstractmethod
    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All users and values, in any order."""

    @abstractmethod
    def expired_markers(self, before_ms: int) -> list[bytes]:
        """Users of whom nothing but a marker written before `before_ms` is left."""

    @abstractmethod
    def close(self) -> None:
        """Keep what is to be kept. The table cannot be used any more; closing again does nothing."""


class Opened(NamedTuple):
    """A table that holds all of its partition's records before `next_offset`."""

    table: PartitionTable
    next_offset: int


class Stores(ABC):
    """Where a worker's tables come from."""

    @abstractmethod
    def open(self, ends: Mapping[int, int], as_of_ms: int) -> dict[int, Opened]:
        """Tables of partitions of which no table is open. May block.

        Args:
            ends: partition -> the changelog's end, which only this worker can move now.
            as_of_ms: when the ends were asked for.

        Raises:
            StoreError: the disk does not let it.
            TopicError, UnavailableError: Kafka does not tell what has to be known.
        """


class MemoryTable(PartitionTable):
    """A plain dict with a side index of forgotten users' markers: values without records, which expire one day."""

    blocks = False

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._markers = Markers()

    def __len__(self) -> int:
        return len(self._values)

    def get_many(self, users: Sequence[bytes]) -> list[bytes | None]:
        return list(map(self._values.get, users))

    def put_many(
        self,
        writes: Iterable[tuple[bytes, bytes | None, int]],
        next_offset: int | None = None,
        as_of_ms: int | None = None,
    ) -> None:
        values, markers = self._values, self._markers
        for user, value, written_ms in writes:
            if value is None:
                values.pop(user, None)
                markers.drop(user)
                continue
            values[user] = value
            if len(value) == HEADER_BYTES:
                markers.note(user, written_ms)
            elif markers:
                markers.drop(user)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self._values.items())

    def expired_markers(self, before_ms: int) -> list[bytes]:
        return self._markers.expired(before_ms)

    def close(self) -> None:
        self._values = {}
        self._markers = Markers()


class MemoryStores(Stores):
    """Nothing is kept: a table begins at the changelog's beginning."""

    def open(self, ends: Mapping[int, int], as_of_ms: int) -> dict[int, Opened]:
        return {partition: Opened(MemoryTable(), 0) for partition in ends}


class Markers:
    """Forgotten users, and when their markers were written: few, since they expire."""

    def __init__(self) -> None:
        self._written_ms: dict[bytes, int] = {}
        self._oldest_ms = 0  # none is older

    def __len__(self) -> int:
        return len(self._written_ms)

    def __contains__(self, user: object) -> bool:
        return user in self._written_ms

    def note(self, user: bytes, written_ms: int) -> None:
        self._oldest_ms = min(self._oldest_ms, written_ms) if self._written_ms else written_ms
        self._written_ms[user] = written_ms

    def drop(self, user: bytes) -> None:
        self._written_ms.pop(user, None)

    def expired(self, before_ms: int) -> list[bytes]:
        """Asked once a second: looks at each marker only when one may have expired."""
        if not self._written_ms or self._oldest_ms >= before_ms:
            return []
        expired = [user for user, written_ms in self._written_ms.items() if written_ms < before_ms]
        if not expired:  # the oldest ones were dropped
            self._oldest_ms = min(self._written_ms.values())
        return expired
