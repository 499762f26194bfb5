"""What a worker does about a Redis that lost writes: it commits nothing that is not there, and says what to read again.

The marks of encoder/redis_progress.py are looked at with every commit, also while there is nothing to commit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from encoder.metrics import EVERYTHING, NEWEST, EncodeMetrics
from encoder.redis_progress import Lost, RedisProgress
from schemas.errors import UnavailableError

_log = logging.getLogger(__name__)


class LossWatch:
    """Of the partitions that this worker owns. Not for several threads."""

    def __init__(self, progress: RedisProgress, metrics: EncodeMetrics) -> None:
        self._progress = progress
        self._metrics = metrics
        self._gained: dict[int, int | None] = {}
        self._lost: dict[int, Lost] = {}

    def gained(self, committed: Mapping[int, int | None]) -> None:
        """Watch these too, each with the offset that the group has committed."""
        self._gained.update(committed)

    def forget(self, partitions: Iterable[int]) -> None:
        """They are another worker's now."""
        gone = list(partitions)
        for partition in gone:
            self._gained.pop(partition, None)
            self._lost.pop(partition, None)
        self._progress.forget(gone)

    def may_commit(self, done: Mapping[int, int]) -> set[int]:
        """Move marks on and look whether they were there.

        Args:
            done: partition -> the offset before which every record is in a state.

        Returns:
            Partitions of `done` that may be committed: none while Redis does not answer, and none that it lost writes of.
        """
        try:
            if self._gained:
                self._note(self._progress.begin(self._gained))
                self._gained.clear()
            self._note(self._progress.advance({p: offset for p, offset in done.items() if p not in self._lost}))
        except UnavailableError:
            return set()  # who writes states says so, and encoder/redis_watch.py
        return done.keys() - self._lost.keys()

    @property
    def lost(self) -> dict[int, Lost]:
        """Partitions of which Redis lost writes: read them again, and say `reads_again`."""
        return dict(self._lost)

    def reads_again(self, partition: int) -> None:
        """What is done of it from now on is in Redis again."""
        self._lost.pop(partition, None)

    def _note(self, lost: Mapping[int, Lost]) -> None:
        self._lost.update(lost)
        for partition, gap in lost.items():
            self._metrics.redis_losses.labels(EVERYTHING if gap.everything else NEWEST).inc()
            _log.error(
                "Redis lost states of partition %d that were written before offset %d: they are made anew from offset %d on",
                partition,
                gap.known_offset,
                gap.next_offset,
            )
