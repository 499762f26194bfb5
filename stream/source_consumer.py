"""Faust's consumer of packed batches, without the ways in which it loses one.

In a rebalance Faust throws away what it has fetched and reads again from the committed offsets. A message that its fetcher had in
hand can come through afterwards. Then (faust-streaming 0.15.3, faust/transport/consumer.py)

- `_drain_messages` takes everything before that message for read, and drops it when it comes again;
- `_new_offset` lets the first offset after the committed one be missing, so that one message that was never worked off is
  committed over. More than one missing stop every later commit;
- `_commit_offsets` takes an offset for committed whose commit was refused, since the worker had lost its place in the group;
- `perform_seek` does nothing for a partition of which nothing is committed yet.

The last two together, after a broker that was frozen before the first commit, left a partition where it was for ever.

Here nothing counts as read, since working a batch off twice changes nothing, and an offset is committed when every message
before it was worked off. `engagement-batches` has an offset for every message: ingest writes without transactions. So a hole
means a message that is still to come; stream.progress has it read again.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from faust.transport.consumer import ensure_TP
from faust.transport.drivers.aiokafka import Consumer
from faust.types import TP, Message


class SourceConsumer(Consumer):
    """
    Args:
        topic: of the packed batches.
        log_start: the oldest offset that a partition of it had when this worker gained it.
    """

    logger = logging.getLogger("faust.slipstream")

    def __init__(self, *args: Any, topic: str, log_start: Callable[[int], int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = _NothingRead()
        self._topic = topic
        self._log_start = log_start
        self._worked_off: defaultdict[TP, set[int]] = defaultdict(set)  # and not committed yet
        self._committed: dict[TP, int] = {}  # Faust forgets it before the last commit of a partition that goes

    async def perform_seek(self) -> None:
        """Read on from what the group says is committed; where nothing is, from the log's start."""
        for found, offset in (await self.seek_to_committed()).items():
            tp = ensure_TP(found)
            self._committed_offset[tp] = offset or None
            if tp.topic == self._topic and not offset:
                self._committed.pop(tp, None)
                await self.seek(tp, self._log_start(tp.partition))

    def ack(self, message: Message) -> bool:
        if message.topic == self._topic:
            self._worked_off[message.tp].add(message.offset)
        return super().ack(message)

    def _new_offset(self, tp: TP) -> int | None:
        """The offset that may be committed, None if it has not moved."""
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        if (committed := self._committed_offset[tp]) is not None:
            self._committed[tp] = committed
        start = max(self._committed.get(tp, 0), self._log_start(tp.partition))
        worked_off = self._worked_off[tp]
        end = contiguous(start, worked_off)
        worked_off -= {offset for offset in worked_off if offset < start}
        return end if end > start else None


def contiguous(start: int, offsets: set[int]) -> int:
    """The first offset from `start` on that is not among them."""
    while start in offsets:
        start += 1
    return start


class _NothingRead(dict[TP, int | None]):
    """Faust's mapping of partitions to offsets read, always empty."""

    def __getitem__(self, _: TP) -> int | None:
        return None

    def __setitem__(self, _: TP, offset: int | None) -> None: ...

    def update(self, *_: Any, **__: Any) -> None: ...
