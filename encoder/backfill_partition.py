"""What of one partition is being backfilled: read, but not worked off. Pure.

Of each user only the newest sequence is held: it has all that the ones before it had. So a log that is not compacted yet costs
each user once, as far as their records stand close enough together. An offset is done when nothing before it is held: a record
that gave way to a newer one needs no work, since that one comes after it, whoever reads on.
"""

from __future__ import annotations

from typing import NamedTuple

from encoder.backfill import Range
from encoder.changelog import ChangelogRecord
from schemas.errors import SequenceError
from schemas.sequence import RECORD_BYTES, verify_sequence


class Held(NamedTuple):
    """
    Attributes:
        read_ms: when it was read, Unix ms.
        events: that a state may have to be made of, about; 1 at least.
    """

    record: ChangelogRecord
    read_ms: int
    events: int


class BackfillPartition:
    """
    Attributes:
        next_offset: where to read on.
        end: where to stop.
        done: up to where all work is done, as was told last.
    """

    def __init__(self, found: Range, window: int) -> None:
        """
        Args:
            window: events of a state at most: a longer sequence costs no more.
        """
        self.next_offset = self.done = found.start
        self.end = found.end
        # By user, those that stand alone by offset; ordered by offset.
        self._held: dict[bytes | int, Held] = {}
        self._live_users: set[bytes] = set()
        self._window = window

    def __len__(self) -> int:
        return len(self._held)

    @property
    def is_read(self) -> bool:
        return self.next_offset >= self.end

    @property
    def first_undone(self) -> int:
        """The offset to read on from, once what was taken is done."""
        return next(iter(self._held.values())).record.offset if self._held else self.next_offset

    def put(self, record: ChangelogRecord, read_ms: int) -> None:
        """Hold the record that was read at `next_offset` or behind it."""
        self.next_offset = record.offset + 1
        held = Held(record, read_ms, max(1, min(self._window, len(record.value or b"") // RECORD_BYTES)))
        if not record.user or not _is_good(record):
            self._held[record.offset] = held  # its error is to be told; what its user had before counts
        elif record.user not in self._live_users:
            self._held.pop(record.user, None)
            self._held[record.user] = held

    def skip_to(self, offset: int) -> None:
        """Nothing is there before it."""
        self.next_offset = min(offset, self.end)

    def saw_live(self, user: bytes) -> None:
        """A newer sequence of the user was live, and is in the state: what is older is not wanted. It might even do harm, when
        that sequence was a delete whose marker has gone meanwhile."""
        self._live_users.add(user)
        self._held.pop(user, None)

    def take(self, events: float, max_records: int) -> list[Held]:
        """The oldest that are held, of so many events in all at most, but one record at least."""
        taken: list[bytes | int] = []
        for key, held in self._held.items():
            events -= held.events
            if len(taken) == max_records or (taken and events < 0):
                break
            taken.append(key)
        return [self._held.pop(key) for key in taken]


def _is_good(record: ChangelogRecord) -> bool:
    try:
        if record.value is not None:
            verify_sequence(record.value)
    except SequenceError:
        return False
    return True
