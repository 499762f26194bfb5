"""What `slipstream model status` says of a backfill, from the notes beside the committed offsets."""

from __future__ import annotations

from schemas.backfill import BackfillNote, encode_note
from slipstream.cli.model import progress
from slipstream.rollover import Backfill, backfill_of
from stream.group_offsets import Committed


def noted(offset: int, worker: str, end: int, per_s: float, left_s: float | None) -> Committed:
    return Committed(offset, encode_note(BackfillNote(worker, end, per_s, left_s)))


def test_workers_are_added_up_and_the_slowest_is_waited_for() -> None:
    found = [
        noted(100, "a", 300, 50.0, 8.0),  # one worker's two partitions
        noted(200, "a", 400, 50.0, 8.0),
        noted(10, "b", 40, 1.0, 30.0),
        Committed(77, ""),  # read in its order
        noted(500, "c", 500, 0.0, 0.0),
    ]
    assert backfill_of(found, True) == Backfill(430, 51.0, 30.0)


def test_what_is_not_known_is_not_said() -> None:
    assert backfill_of([Committed(5, ""), Committed(6, "another tool's")], True) is None
    found = [noted(100, "a", 300, 50.0, 4.0), noted(10, "b", 40, 0.0, None)]
    assert backfill_of(found, True) == Backfill(230, 50.0, None)
    assert backfill_of(found, False) == Backfill(230, None, None)


def test_it_is_told_in_words() -> None:
    assert progress(Backfill(12_000, 180.4, 66.5)) == "12,000 offsets left, 180 a second, 0:01:06 to go"
    assert progress(Backfill(12_000, 0.0, None)) == "12,000 offsets left"
    assert progress(Backfill(12_000, None, None)) == "12,000 offsets left, no encoder runs"
