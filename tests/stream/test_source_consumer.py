"""What may be committed. Run: pytest tests/stream/test_source_consumer.py"""

from __future__ import annotations

import pytest

from stream.source_consumer import contiguous


@pytest.mark.parametrize(
    ("start", "worked_off", "end"),
    [
        (5, set(), 5),
        (5, {5, 6, 7}, 8),
        (5, {6, 7}, 5),  # the first one is still to come: Faust would commit 8
        (5, {5, 7, 8}, 6),
        (5, {1, 2, 5}, 6),  # read again after a seek
        (0, {0}, 1),
    ],
)
def test_nothing_is_committed_behind_a_message_that_is_still_to_come(
    start: int, worked_off: set[int], end: int
) -> None:
    assert contiguous(start, worked_off) == end
