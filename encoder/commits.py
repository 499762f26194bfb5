"""Which offsets a worker commits, and when.

A partition has one committed offset, and while it is backfilled two are done: that of the past and that of live records. The
past's is committed, so that whoever reads on from there misses nothing; live ones are held back until the past is done. What
comes twice then finds its state up to date.

Before, Redis is asked whether it still has what was written (encoder/redis_loss.py): nothing is committed that is not there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from time import monotonic

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from edge.process import FAREWELL_S, in_time
from encoder.consumers import SourceConfig
from schemas.backfill import BackfillNote, encode_note

_log = logging.getLogger(__name__)


class Commits:
    def __init__(
        self,
        config: SourceConfig,
        note: Callable[[int], BackfillNote | None],
        may_commit: Callable[[Mapping[int, int]], Collection[int]],
    ) -> None:
        """
        Args:
            note: what to leave beside a partition's offset.
            may_commit: which of these partitions' offsets may be committed now; the others wait. Asked at every interval, also
                about none.
        """
        self._config = config
        self._note = note
        self._may_commit = may_commit
        self._done: dict[int, int] = {}
        self._due: dict[int, int] = {}
        self._held: dict[int, int] = {}
        self._committed_s = monotonic()

    def done(self, next_offsets: Mapping[int, int]) -> None:
        self._done.update(next_offsets)
        self._due.update(next_offsets)

    def hold(self, partition: int, next_offset: int) -> None:
        """Done, and not to be committed before `release`."""
        self._held[partition] = next_offset

    def release(self, partition: int) -> None:
        """What was held may be committed."""
        if partition in self._held:
            self.done({partition: self._held.pop(partition)})

    def forget(self, partitions: Iterable[int]) -> None:
        """They are another worker's now, or read again."""
        for partition in partitions:
            self._done.pop(partition, None)
            self._due.pop(partition, None)
            self._held.pop(partition, None)

    def commit_if_due(self, consumer: Consumer) -> None:
        if monotonic() - self._committed_s >= self._config.commit_interval_s:
            self._commit(consumer, set(self._due), wait=False)

    def commit_now(self, consumer: Consumer, partitions: Iterable[int] | None = None) -> bool:
        """Commit these, or all, and wait for the answer. False: Kafka did not answer in time; what was not committed comes again.

        To wait is bounded, since librdkafka waits for a coordinator that is gone for more than a minute, and nobody can stop it.
        """
        return self._commit(consumer, set(self._due if partitions is None else partitions), wait=True)

    def _commit(self, consumer: Consumer, partitions: set[int], wait: bool) -> bool:
        allowed = self._may_commit({p: self._due[p] for p in partitions if p in self._due})
        offsets = [self._with_note(p, self._due.pop(p)) for p in allowed]
        self._committed_s = monotonic()
        if not offsets:
            return True
        try:
            if not wait:
                consumer.commit(offsets=offsets, asynchronous=True)
            elif not in_time(FAREWELL_S, lambda: consumer.commit(offsets=offsets, asynchronous=False)):
                _log.warning(
                    "offsets of topic %s, partitions %s were not committed within %.0f s, their records come again: Kafka at %s "
                    "does not answer",
                    self._config.topic,
                    sorted(p.partition for p in offsets),
                    FAREWELL_S,
                    self._config.kafka.bootstrap_servers,
                )
                return False
        except KafkaException as error:
            self.answered(error.args[0], offsets)
        return True

    def answered(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        """Kafka's answer to a commit."""
        failed = [p for p in offsets if error is not None or p.error is not None]
        if not failed:
            return
        cause = error or failed[0].error  # the records come again, and find their states up to date
        _log.warning(
            "offsets of topic %s were not committed, their records come again: %s",
            self._config.topic,
            cause.str() if cause else "",
        )
        for p in failed:  # not its own offset: the partition may be read again from before it
            if p.partition in self._done:
                self._due[p.partition] = self._done[p.partition]

    def _with_note(self, partition: int, offset: int) -> TopicPartition:
        note = self._note(partition)
        if note is None:
            return TopicPartition(self._config.topic, partition, offset)
        return TopicPartition(self._config.topic, partition, offset, encode_note(note))
