"""Folding changelog records into one update per user."""

from __future__ import annotations

import pytest

from encoder.changelog import ChangelogRecord, fold
from schemas.errors import SequenceError
from schemas.sequence import Sequence, encode_sequence
from schemas.state import Fence
from tests.encoder.histories import events

TOPIC_ID = b"i" * 16


def record(user: bytes | None, value: bytes | None, offset: int, timestamp_ms: int = 0) -> ChangelogRecord:
    return ChangelogRecord(user, value, 2, offset, timestamp_ms)


def value(*times: int) -> bytes:
    return encode_sequence(Sequence(0, events(times)))


def test_the_newest_record_of_a_user_counts_and_the_oldest_tells_how_long_it_took() -> None:
    folded, errors = fold(
        [
            record(b"a", value(1), 10, 1000),
            record(b"b", value(5), 11, 1001),
            record(b"a", value(1, 2), 12, 1003),
            record(b"a", value(1, 2, 3), 13, 1002),
        ],
        "t",
        TOPIC_ID,
    )
    assert errors == []
    (a, b) = folded
    assert (a.update.user, b.update.user) == (b"a", b"b")
    assert a.update.records.tobytes() == events([1, 2, 3]).tobytes()
    assert a.update.fence == Fence(TOPIC_ID, 2, 13)
    assert (a.update.arrived_ms, a.oldest_arrived_ms) == (1002, 1000)
    assert (b.update.arrived_ms, b.oldest_arrived_ms) == (1001, 1001)


@pytest.mark.parametrize("deleting", [None, encode_sequence(Sequence(7, events([])))])
def test_a_tombstone_and_an_empty_sequence_delete(deleting: bytes | None) -> None:
    (folded,), errors = fold([record(b"a", value(1), 1), record(b"a", deleting, 2)], "t", TOPIC_ID)
    assert errors == []
    assert len(folded.update.records) == 0
    assert folded.update.fence.offset == 2


def test_what_cannot_be_read_is_named_and_stops_nobody() -> None:
    bad = value(1, 2)[:-1] + b"\xff"
    folded, errors = fold(
        [
            record(b"a", value(1), 1),
            record(b"a", bad, 2),
            record(b"b", b"junk", 3),
            record(None, value(1), 4),
            record(b"", value(1), 5),
            record(b"c", value(9), 6),
        ],
        "the.topic",
        TOPIC_ID,
    )
    # The older record of a is good: better than nothing.
    assert [(row.update.user, row.update.fence.offset) for row in folded] == [(b"a", 1), (b"c", 6)]
    assert {str(error).split(":")[0] for error in errors} == {
        f"topic the.topic, partition 2, offset {offset}" for offset in (2, 3, 4, 5)
    }


def test_a_record_of_another_version_is_not_skipped() -> None:
    newer = bytearray(value(1, 2))
    newer[2] = 2
    with pytest.raises(
        SequenceError, match=r"partition 2, offset 2: sequence version 2, this build reads 1: upgrade it"
    ):
        fold([record(b"a", value(1), 1), record(b"a", bytes(newer), 2), record(b"b", value(1), 3)], "t", TOPIC_ID)


def test_nothing() -> None:
    assert fold([], "t", TOPIC_ID) == ([], [])
