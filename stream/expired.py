"""Raw messages that retention removed before ingest read them: said and counted, never passed over in silence.

librdkafka resets a position that the log no longer has by itself, and says nothing. With `auto.offset.reset=error` it reports it
instead, at the start and in the middle alike, and stops reading that partition until somebody says where to go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from edge.kafka import mapped

logger = logging.getLogger(__name__)

#: The loop stands still meanwhile, so it is short: the next pass asks again.
_ANSWER_S = 2.0


class ExpiredOffsets:
    """The partitions of one topic that a consumer cannot read on from where it was.

    Args:
        count: called with the number of messages that are lost.
    """

    def __init__(self, consumer: Consumer, topic: str, count: Callable[[int], None]) -> None:
        self._consumer = consumer
        self._topic = topic
        self._count = count
        self._waiting: dict[int, int | None] = {}  # partition -> the offset that was wanted; None: nothing is committed

    def report(self, error: Message) -> None:
        """Take a message with the error `_AUTO_OFFSET_RESET`."""
        partition, offset = error.partition(), error.offset()
        assert partition is not None
        self._waiting[partition] = offset if offset is not None and offset >= 0 else None

    def forget(self, partitions: Iterable[int]) -> None:
        """They are another worker's now."""
        for partition in partitions:
            self._waiting.pop(partition, None)

    def restart(self) -> dict[int, int]:
        """Go on reading at the log's start. Call it once a pass: what does not succeed is tried again.

        Returns:
            partition -> the offset where it goes on, for those that had an offset: what is before it is nobody's to commit.
        """
        restarted: dict[int, int] = {}
        for partition, wanted in list(self._waiting.items()):
            where = TopicPartition(self._topic, partition)
            try:
                start, end = self._consumer.get_watermark_offsets(where, timeout=_ANSWER_S)
                offset = wanted if wanted is not None and start <= wanted <= end else start
                with suppress(KafkaException):  # if an earlier attempt came no further
                    self._consumer.incremental_unassign([where])  # librdkafka refuses to seek in this state
                self._consumer.incremental_assign([TopicPartition(self._topic, partition, offset)])
            except KafkaException as error:
                cause = mapped(error, f"topic {self._topic}")
                extra = {"topic": self._topic, "partition": partition}
                logger.warning("partition %d is not read yet: %s", partition, cause, extra=extra)
                break
            del self._waiting[partition]
            if wanted is not None:
                self._say(partition, wanted, start, end)
                restarted[partition] = offset
        return restarted

    def _say(self, partition: int, wanted: int, start: int, end: int) -> None:
        where = f"topic {self._topic}, partition {partition}"
        extra = {"topic": self._topic, "partition": partition, "offset": wanted}
        if wanted < start:
            self._count(start - wanted)
            logger.error(
                "%s: retention removed %d messages, offsets %d to %d, before ingest read them: their events are in no sequence. "
                "Going on at offset %d. Send them again if their source still has them; raise the topic's retention.ms or "
                "retention.bytes, or run more workers",
                *(where, start - wanted, wanted, start - 1, start),
                extra=extra,
            )
        elif wanted > end:
            logger.error(
                "%s: offset %d is committed, but the log ends at %d: was the topic made anew, or did a broker lose data? Reading "
                "all that it holds, from offset %d; what comes twice counts once",
                *(where, wanted, end, start),
                extra=extra,
            )
