"""Reads what is to be backfilled, beside the group's consumer: by one of its own, which never joins and commits nothing."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from edge.process import FAREWELL_S, in_time
from encoder.backfill import Progress, Range
from encoder.backfill_partition import BackfillPartition
from encoder.changelog import ChangelogRecord
from encoder.consumers import made_anew, to_record
from encoder.engine import unix_ms
from schemas.backfill import BackfillNote

#: Records that are held for being worked off: the more, the more give way to newer ones of their users. 5 KiB each at most.
_HELD_RECORDS = 4096
#: Read between two runs, a millisecond's work.
_READ_RECORDS = 512


class Run(NamedTuple):
    """What one run of backfill works off.

    Attributes:
        next_offsets: by partition, what is done when the records are.
        events: that states may have to be made of.
        read_ms: when the oldest of the records was read, Unix ms.
    """

    records: list[ChangelogRecord]
    next_offsets: dict[int, int]
    events: int
    read_ms: int


class BackfillReader:
    """Not for several threads."""

    def __init__(
        self, topic: str, window: int, connect: Callable[[], Consumer], on_error: Callable[[KafkaError], None]
    ) -> None:
        """
        Args:
            window: events of a state at most.
            connect: makes the consumer, when there is something to read.
            on_error: told what goes wrong with a partition.
        """
        self._topic = topic
        self._window = window
        self._connect = connect
        self._on_error = on_error
        self._consumer: Consumer | None = None
        self._partitions: dict[int, BackfillPartition] = {}
        self._passed = 0
        self._progress = Progress()
        self._name = secrets.token_hex(4)

    def __contains__(self, partition: int) -> bool:
        return partition in self._partitions

    def __len__(self) -> int:
        return len(self._partitions)

    def add(self, ranges: Mapping[int, Range]) -> None:
        """Read these too."""
        if not ranges:
            return
        if self._consumer is None:
            self._consumer = self._connect()
        if not self._partitions:
            self._progress, self._passed = Progress(), 0
        for partition, found in ranges.items():
            self._partitions[partition] = BackfillPartition(found, self._window)
        self._consumer.incremental_assign([TopicPartition(self._topic, p, found.start) for p, found in ranges.items()])

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget these, if they are read here."""
        dropped = {p: self._partitions.pop(p) for p in partitions if p in self._partitions}
        self._stop_reading([p for p, partition in dropped.items() if not partition.is_read])
        if dropped and not self._partitions:
            self.close()

    def take(self, events: float, max_records: int) -> Run:
        """A run of about so many events, of what has been read; nothing if nothing has. Does not wait.

        Raises:
            TopicError: the topic was made anew.
        """
        self._read()
        fullest = max(self._partitions.values(), key=len, default=None)
        held = fullest.take(events, max_records) if fullest is not None else []
        undone = {p: partition.first_undone for p, partition in self._partitions.items()}
        return Run(
            [h.record for h in held],
            {p: offset for p, offset in undone.items() if offset > self._partitions[p].done},
            sum(h.events for h in held),
            min((h.read_ms for h in held), default=0),
        )

    def saw_live(self, partition: int, user: bytes) -> None:
        """A newer sequence of this user is in its state: an older one is not wanted any more."""
        if partition in self._partitions:
            self._partitions[partition].saw_live(user)

    def done(self, partition: int, offset: int) -> bool:
        """The work up to there is done. Whether that was the last of this partition: then it is forgotten."""
        found = self._partitions[partition]
        self._passed += offset - found.done
        found.done = offset
        if offset < found.end:
            return False
        self.drop([partition])
        return True

    def left(self) -> dict[int, int]:
        """By partition, offsets that are still to be worked off."""
        return {p: partition.end - partition.done for p, partition in self._partitions.items()}

    def note(self, partition: int) -> BackfillNote | None:
        """How far it is; None: this partition is not backfilled."""
        found = self._partitions.get(partition)
        if found is None:
            return None
        self._progress.update(self._passed)
        left_s = self._progress.left_s(sum(self.left().values()))
        return BackfillNote(
            self._name, found.end, round(self._progress.per_s, 1), None if left_s is None else round(left_s, 1)
        )

    def __str__(self) -> str:
        """Where it stands, for people."""
        left = sum(self.left().values())
        self._progress.update(self._passed)
        left_s = self._progress.left_s(left)
        soon = (
            ""
            if left_s is None
            else f", {self._progress.per_s:,.0f} a second: {timedelta(seconds=round(left_s))} to go"
        )
        return f"{left:,} offsets left in partitions {sorted(self._partitions)}{soon}"

    def close(self) -> bool:
        """Read no more. False: Kafka does not answer, and a thread of this process still waits for it."""
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return True
        return in_time(FAREWELL_S, consumer.close)

    def _read(self) -> None:
        if self._consumer is None:
            return
        room = _HELD_RECORDS - sum(map(len, self._partitions.values()))
        now_ms, unread = unix_ms(), [p for p, partition in self._partitions.items() if not partition.is_read]
        for message in self._consumer.consume(_READ_RECORDS, 0) if room > 0 else []:
            if message.partition() in self._partitions:  # else it was dropped while it was fetched
                self._put(message, now_ms)
        self._stop_reading([p for p in unread if self._partitions[p].is_read])

    def _put(self, message: Message, now_ms: int) -> None:
        error: KafkaError | None = message.error()
        number, offset = int(message.partition() or 0), int(message.offset() or 0)
        partition = self._partitions[number]
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            self._on_error(error)
        elif offset < partition.next_offset:
            raise made_anew(self._topic, number, offset, partition.next_offset)
        elif error is None and offset < partition.end:
            partition.put(to_record(message, number, offset), now_ms)
        else:
            partition.skip_to(offset)

    def _stop_reading(self, partitions: list[int]) -> None:
        if partitions and self._consumer is not None:
            self._consumer.incremental_unassign([TopicPartition(self._topic, p) for p in partitions])
