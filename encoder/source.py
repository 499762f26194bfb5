"""The changelog as a consumer group reads it: micro-batches in, offsets committed once their work is done.

A partition that is far behind when it is assigned is read at two places at once (encoder/backfill.py): the group's consumer
begins where it ends now, and a reader beside it has what is before. A partition of which Redis lost writes is far behind again
(encoder/redis_loss.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from time import monotonic

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from edge.group import leave_group
from edge.kafka import make, mapped, reason
from encoder.backfill import Range, backfill_range
from encoder.backfill_reader import BackfillReader, Run
from encoder.changelog import ChangelogRecord
from encoder.commits import Commits
from encoder.consumers import Polled, SourceConfig, made_anew, settings_of_any, settings_of_member, to_record
from encoder.engine import Update
from encoder.redis_loss import LossWatch
from encoder.redis_progress import Lost
from schemas.errors import SlipstreamError

_log = logging.getLogger(__name__)

_WARN_EVERY_S = 10.0
#: For an answer about a partition that is being assigned.
_ASK_S = 5.0
#: librdkafka says so after it has looked for a while (topic.metadata.propagation.max.ms, 30 s).
_HOPELESS = {
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
}


class Source:
    """Reads the partitions that the group gives it. Not for several threads.

    Attributes:
        backfill: what is read beside; work it off like the rest, and tell `backfilled`.
    """

    def __init__(self, config: SourceConfig, losses: LossWatch, on_gone: Callable[[set[int]], None]) -> None:
        """
        Args:
            on_gone: told the partitions that are another worker's now, after what is done was committed, or are read again.

        Raises:
            ConfigError: librdkafka does not take an option.
        """
        self._config = config
        self._losses = losses
        self._on_gone = on_gone
        self._owned: set[int] = set()
        self._positions: dict[int, int] = {}
        self._warned_s = -_WARN_EVERY_S
        self._failure: SlipstreamError | None = None
        self.backfill = BackfillReader(config.topic, config.window, self._reader, self._on_error)
        self._commits = Commits(config, self.backfill.note, losses.may_commit)
        self._consumer: Consumer = make(
            Consumer, settings_of_member(config, self._on_error, self._on_commit), config.kafka
        )
        self._consumer.subscribe(
            [config.topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def wait(self, timeout_s: float) -> Message | None:
        """The first message, or None after the timeout. Hand it to `take`.

        Raises:
            TopicError: the topic is gone, or this user may not read it.
        """
        first = self._consumer.poll(timeout_s)
        if self._failure is not None:
            raise self._failure
        return first

    def take(self, first: Message, max_records: int) -> Polled:
        """The first message and what has gathered behind it, without waiting: alone a batch of one, under load a larger one.

        Raises:
            TopicError: the topic was made anew.
        """
        messages = [first, *self._consumer.consume(max_records - 1, 0)]
        records: list[ChangelogRecord] = []
        next_offsets: dict[int, int] = {}
        for message in messages:
            partition, offset = message.partition(), message.offset()
            error = message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                self._on_error(error)
                continue
            if partition is None or offset is None or partition not in self._owned:
                continue  # taken away while we were polling; its new owner reads it
            if offset < self._positions.get(partition, 0):
                raise made_anew(self._config.topic, partition, offset, self._positions[partition])
            if error is None:
                records.append(to_record(message, partition, offset, self._config.traced))
                offset += 1
            self._positions[partition] = next_offsets[partition] = offset
        return Polled(records, next_offsets)

    def done(self, polled: Polled, updates: Iterable[Update]) -> None:
        """The records' work is done, which was these updates: their offsets may be committed."""
        for partition, offset in polled.next_offsets.items():
            if partition in self.backfill:
                self._commits.hold(partition, offset)
            elif partition in self._owned:
                self._commits.done({partition: offset})
        if self.backfill:
            for update in updates:
                self.backfill.saw_live(update.fence.partition, update.user)

    def backfilled(self, run: Run) -> None:
        """Likewise of what `backfill` gave."""
        for partition, offset in run.next_offsets.items():
            self._commits.done({partition: offset})
            if self.backfill.done(partition, offset):
                self._commits.release(partition)

    def commit_if_due(self) -> None:
        """And see to what Redis lost. Call it when nothing is in work."""
        self._commits.commit_if_due(self._consumer)
        for partition, lost in self._losses.lost.items():
            self._read_again(partition, lost)

    def lag_records(self) -> dict[int, int]:
        """By partition, offsets between what is done and the end of the log, as of the last fetch."""
        lags, backfill = {}, self.backfill.left()
        for partition in self._owned:
            watermarks = self._consumer.get_watermark_offsets(self._partition(partition), cached=True)
            if watermarks is not None and watermarks[1] >= 0 and partition in self._positions:
                live = max(0, watermarks[1] - self._positions[partition])
                lags[partition] = live + backfill.get(partition, 0)
        return lags

    def close(self) -> bool:
        """Commit what is done and leave the group. False: Kafka did not answer in time, and a thread of this process still waits
        for it; what was not committed comes again."""
        committed = self._commits.commit_now(self._consumer)
        closed = self.backfill.close()
        return leave_group(self._consumer, self._config.kafka, _log) and committed and closed

    def _reader(self) -> Consumer:
        return make(Consumer, settings_of_any(self._config, self._on_error), self._config.kafka)

    def _partition(self, partition: int, offset: int | None = None) -> TopicPartition:
        if offset is None:
            return TopicPartition(self._config.topic, partition)
        return TopicPartition(self._config.topic, partition, offset)

    def _on_commit(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        self._commits.answered(error, offsets)

    def _on_error(self, error: KafkaError) -> None:
        """What librdkafka does not get over by itself ends the next `wait`; the rest it does, and goes on."""
        where = f"Kafka at {self._config.kafka.bootstrap_servers}, topic {self._config.topic}"
        if error.fatal() or error.code() in _HOPELESS:
            self._failure = mapped(error, where)
        elif monotonic() - self._warned_s > _WARN_EVERY_S:  # it dials 20 times a second, and says so each time
            self._warned_s = monotonic()
            _log.warning("%s: %s; trying on", where, error.str())

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        ranges = self._backfill_ranges(consumer, partitions)
        for p in partitions:
            self._positions.pop(p.partition, None)
            if p.partition in ranges:
                p.offset = self._positions[p.partition] = ranges[p.partition].end
        consumer.incremental_assign(partitions)  # without an offset: from the committed one
        self._owned |= {p.partition for p in partitions}
        self.backfill.add(ranges)
        if partitions:
            _log.info("reading partitions %s of %s", sorted(self._owned), self._config.topic)
        if ranges:
            behind = sum(found.end - found.start for found in ranges.values())
            _log.info("partitions %s are %d offsets behind: live records go first", sorted(ranges), behind)

    def _backfill_ranges(self, consumer: Consumer, partitions: list[TopicPartition]) -> dict[int, Range]:
        """What of them is to be backfilled."""
        found = {}
        try:
            for p in consumer.committed(partitions, timeout=_ASK_S) if partitions else []:
                if p.error is not None:
                    raise KafkaException(p.error)
                # With isolation.level=read_committed the end is the last stable offset.
                low, end = consumer.get_watermark_offsets(p, timeout=_ASK_S)
                committed = p.offset if p.offset >= 0 else None
                self._losses.gained({p.partition: committed})
                past = backfill_range(committed, low, end, self._config.backfill)
                if past is not None:
                    found[p.partition] = past
        except KafkaException as error:
            _log.warning(
                "Kafka does not say how far partitions %s of %s are behind (%s): they are read in their order, live records last",
                [p.partition for p in partitions],
                self._config.topic,
                reason(error),
            )
            return {}
        return found

    def _read_again(self, partition: int, lost: Lost) -> None:
        """From where on Redis lost what was written. If it is much, live records go first here too."""
        position = self._positions.get(partition, lost.known_offset)
        past = backfill_range(lost.next_offset, 0, position, self._config.backfill)
        if past is None:
            try:
                self._consumer.seek(self._partition(partition, lost.next_offset))
            except KafkaException as error:  # it was taken away just now, which the next poll tells; else try again
                _log.warning(
                    "partition %d of %s is not read again yet: %s", partition, self._config.topic, reason(error)
                )
                return
            position = lost.next_offset
        self._positions[partition] = position
        self.backfill.drop([partition])
        if past is not None:
            self.backfill.add({partition: past})
        self._commits.forget([partition])
        self._commits.done({partition: lost.next_offset})  # so that everybody sees how far it is
        self._on_gone({partition})
        self._losses.reads_again(partition)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        gone = {p.partition for p in partitions}
        self._commits.commit_now(consumer, gone)
        self._forget(gone)

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        _log.warning("partitions %s are another worker's since this one was silent", [p.partition for p in partitions])
        self._forget({p.partition for p in partitions})

    def _forget(self, gone: set[int]) -> None:
        self._owned -= gone
        self._commits.forget(gone)
        self._losses.forget(gone)
        self.backfill.drop(gone)
        self._on_gone(gone)
