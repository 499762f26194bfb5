"""From changelog records to updates: the newest readable sequence of each user. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from encoder.engine import Update
from schemas.errors import SequenceError
from schemas.sequence import NO_RECORDS, decode_sequence, is_of_another_version
from schemas.state import Fence


class ChangelogRecord(NamedTuple):
    """
    Attributes:
        value: a sequence; None: a tombstone.
        timestamp_ms: arrival of the oldest raw event that this record folded in.
        traces: its header of traced events (schemas/traces.py), if it was asked for.
    """

    user: bytes | None
    value: bytes | None
    partition: int
    offset: int
    timestamp_ms: int
    traces: bytes | None = None


class Folded(NamedTuple):
    """A user's update.

    Attributes:
        oldest_arrived_ms: of all the user's records that the update stands for.
    """

    update: Update
    oldest_arrived_ms: int


class Fold(NamedTuple):
    folded: list[Folded]
    errors: list[SequenceError]


def fold(records: Sequence[ChangelogRecord], topic: str, topic_id: bytes) -> Fold:
    """One update per user, from its newest record: a sequence holds all that the ones before it held.

    A record that cannot be read is an error of its own; if an older one of its user can be, that one counts.

    Raises:
        SequenceError: a record of another version: skipped, its user's state would stay older than it looks.
    """
    by_user: dict[bytes, list[ChangelogRecord]] = {}
    errors: list[SequenceError] = []
    for record in records:
        if record.user:
            by_user.setdefault(record.user, []).append(record)
        else:
            errors.append(SequenceError(f"{_where(topic, record)}: it has no key, so it is nobody's sequence"))
    folded = []
    for user, its_records in by_user.items():
        while its_records:
            newest = its_records[-1]
            try:
                sequence = (
                    NO_RECORDS if newest.value is None else decode_sequence(newest.value, _where(topic, newest)).records
                )
            except SequenceError as error:
                if newest.value and is_of_another_version(newest.value):
                    raise
                errors.append(error)
                its_records.pop()
                continue
            fence = Fence(topic_id, newest.partition, newest.offset)
            oldest_ms = min(record.timestamp_ms for record in its_records)
            folded.append(Folded(Update(user, sequence, fence, newest.timestamp_ms), oldest_ms))
            break
    return Fold(folded, errors)


def _where(topic: str, record: ChangelogRecord) -> str:
    return f"topic {topic}, partition {record.partition}, offset {record.offset}"
