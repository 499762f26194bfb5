"""How far a sequence worker's partitions are behind, and whether each of them makes progress.

Faust can lose a message on its way to us, in a rebalance or after a broker that was frozen for seconds; stream.source_consumer
then commits nothing behind it. To read on from the committed offsets mends it. What does not mend ends the process, and the next
one goes on where this one committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from edge.kafka import Admin
from schemas.errors import UnavailableError
from stream.group_offsets import committed_offsets
from stream.offsets import end_offsets, start_offsets

Partition = tuple[str, int]


def unread(
    admin: Admin, group: str, partitions: Sequence[Partition]
) -> tuple[dict[Partition, int], dict[Partition, int]]:
    """Messages that the group has not committed, and its committed offsets, per (topic, partition). Blocking.

    Raises:
        TopicError, UnavailableError: a topic is not there, or Kafka does not answer.
    """
    if not partitions:
        return {}, {}
    committed = committed_offsets(admin.kafka, group, partitions)
    starts, ends = start_offsets(admin, partitions), end_offsets(admin, partitions)
    behind = {where: max(0, ends[where] - max(committed.get(where, 0), starts[where])) for where in partitions}
    return behind, committed


class Progress:
    """
    Args:
        mend_after_s: for so long there may be something to do without any of it being done; then it is time to read again.
        stalled_after_s: and for so long, then there is no hope.
        clock: seconds.
    """

    def __init__(
        self, mend_after_s: float, stalled_after_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._mend_after_s = mend_after_s
        self._stalled_after_s = stalled_after_s
        self._clock = clock
        self._mended = False
        self.reset()

    def reset(self) -> None:
        """There was a reason to stand still, such as a rebalance, or Kafka was away."""
        self._standing: dict[Partition, tuple[int, float]] = {}  # committed offset, and since when it is that

    def note(self, behind: Mapping[Partition, int], committed: Mapping[Partition, int]) -> bool:
        """What `unread` found; whether it is time to read again from the committed offsets.

        Raises:
            UnavailableError: a partition stands still.
        """
        if behind.keys() != self._standing.keys():  # there was a rebalance
            self.reset()
        now_s = self._clock()
        standing: dict[Partition, tuple[int, float]] = {}
        for where, n in behind.items():
            offset, since_s = committed.get(where, 0), now_s
            if n and (before := self._standing.get(where)) is not None and before[0] == offset:
                since_s = before[1]
            standing[where] = offset, since_s
        self._standing = standing
        waited_s = max((now_s - since_s for _, since_s in standing.values()), default=0.0)
        if waited_s > self._stalled_after_s:
            waiting = ", ".join(f"{topic} {partition}: {n}" for (topic, partition), n in sorted(behind.items()) if n)
            raise UnavailableError(
                f"no progress for {self._stalled_after_s:.0f} s although messages wait ({waiting}) and Kafka answers: nothing is "
                "lost, start the stage again"
            )
        if waited_s < self._mend_after_s:
            self._mended = False
            return False
        again, self._mended = not self._mended, True
        return again
