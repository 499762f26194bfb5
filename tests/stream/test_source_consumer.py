"""What may be committed. Run: pytest tests/stream/test_source_consumer.py"""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest
from aiokafka import TopicPartition
from faust.types import TP

from stream.source_consumer import SourceConsumer, contiguous


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


class Consumer(SourceConsumer):
    """Without clients: what the group has committed is said here, and seeks are noted."""

    def __init__(self, committed: dict[int, int | None]) -> None:
        self._topic, self._log_start = "batches", {0: 0, 1: 40, 2: 40}.__getitem__
        self._worked_off, self._committed = defaultdict(set), {}
        self._committed_offset = defaultdict(lambda: None)
        self._acked, self._acked_index = defaultdict(list), defaultdict(set)
        self._answer = {TopicPartition("batches", partition): offset for partition, offset in committed.items()}
        self.seeks: dict[TP, int] = {}

    async def seek_to_committed(self) -> dict[TopicPartition, int | None]:
        return self._answer

    async def seek(self, partition: TP, offset: int) -> None:
        self.seeks[partition] = offset


def test_a_refused_commit_leaves_no_hole() -> None:
    """Seen with a broker frozen before the first commit: Faust noted it, the group refused it, and 1 to 4 were lost."""
    consumer = Consumer({0: None, 1: None, 2: 45})
    tps = [TP("batches", partition) for partition in range(3)]
    consumer._committed_offset.update({tps[0]: 1, tps[1]: 41, tps[2]: 47})
    consumer._worked_off.update({tps[0]: {5, 6}, tps[1]: {45}, tps[2]: {48}})
    assert [consumer._new_offset(tp) for tp in tps] == [None] * 3
    asyncio.run(consumer.perform_seek())
    assert consumer.seeks == {tps[0]: 0, tps[1]: 40}
    assert [consumer._committed_offset[tp] for tp in tps] == [None, None, 45]
    for tp, first in zip(tps, (0, 40, 45), strict=True):
        consumer._worked_off[tp].update(range(first, first + 5))
    assert [consumer._new_offset(tp) for tp in tps] == [7, 46, 50]
