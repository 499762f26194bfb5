"""How far a sequence worker's partitions are behind, and whether it makes progress at all.

Faust can stop committing without an error. Seen after a broker that was frozen for seconds: a message that its fetcher had in
hand before the rebalance sets the offset read up to forward again afterwards, so the messages between that and the committed
offset are taken for duplicates when they come again, and their missing acknowledgements hold up every later commit. To read on
from the committed offsets mends it. What does not mend ends the process, and the next one goes on where this one committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from edge.kafka import Admin
from schemas.errors import UnavailableError
from stream.group_offsets import committed_offsets
from stream.offsets import end_offsets, start_offsets

Partition = tuple[str, int]


def unread(admin: Admin, group: str, partitions: Sequence[Partition]) -> tuple[dict[Partition, int], int]:
    """Messages that the group has not committed, per (topic, partition), and the sum of its committed offsets. Blocking.

    Raises:
        TopicError, UnavailableError: a topic is not there, or Kafka does not answer.
    """
    if not partitions:
        return {}, 0
    committed = committed_offsets(admin.kafka, group, partitions)
    starts, ends = start_offsets(admin, partitions), end_offsets(admin, partitions)
    behind = {where: max(0, ends[where] - max(committed.get(where, 0), starts[where])) for where in partitions}
    return behind, sum(committed.values())


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
        self._mended = False
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """There was a reason to stand still, such as a rebalance, or Kafka was away."""
        self._last: tuple[list[Partition], int] | None = None
        self._since_s = self._clock()

    def note(self, behind: Mapping[Partition, int], committed: int) -> bool:
        """What `unread` found; whether it is time to read again from the committed offsets.

        Raises:
            UnavailableError: it stands still.
        """
        seen = (sorted(behind), committed)
        if seen != self._last or not any(behind.values()):
            self._last, self._since_s, self._mended = seen, self._clock(), False
            return False
        if self._clock() - self._since_s > self._stalled_after_s:
            waiting = ", ".join(f"{topic} {partition}: {n}" for (topic, partition), n in sorted(behind.items()) if n)
            raise UnavailableError(
                f"no progress for {self._stalled_after_s:.0f} s although messages wait ({waiting}) and Kafka answers: nothing is "
                "lost, start the stage again"
            )
        if self._mended or self._clock() - self._since_s < self._mend_after_s:
            return False
        self._mended = True
        return True
