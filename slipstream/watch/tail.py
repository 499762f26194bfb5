"""The newest records of a topic, followed from outside of any group, with a limit: who looks must not load the broker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from edge.kafka import KafkaConfig, make, mapped
from schemas.names import readers_group
from slipstream.watch.figures import Records
from stream.whole_topic import Headers, Record

_POLL_S = 0.1


class Tail:
    """Reads committed records as they come; when more than `most` came since the last look, it jumps to the end.

    Attributes:
        seen: how far it has come, by (topic, partition).
        begins: partition -> the offset from which on records were written after the tail was made.
    """

    def __init__(self, kafka: KafkaConfig, topic: str, ends: Mapping[int, int], back: int, most: int) -> None:
        """
        Args:
            ends: where the partitions end now.
            back: offsets of each partition to begin before its end.
            most: records of a look.
        """
        self._kafka, self._topic, self._most = kafka, topic, most
        settings = kafka.client(
            group_id=readers_group(topic),
            enable_auto_commit=False,
            enable_partition_eof=True,
            auto_offset_reset="latest",
            isolation_level="read_committed",
            # What librdkafka fetches ahead is what a look may cost.
            queued_min_messages=most,
            queued_max_messages_kbytes=1024,
            fetch_message_max_bytes=256 << 10,
        )
        self.begins = dict(ends)
        self.seen: dict[tuple[str, int], Records] = {}
        self._consumer: Consumer = make(Consumer, settings, kafka)
        self._begin_at({partition: max(0, end - back) for partition, end in ends.items()}, last=-1)

    def look(self, ends: Mapping[int, int]) -> list[Record]:
        """What came since.

        Args:
            ends: where the partitions end now.

        Raises:
            SlipstreamError: Kafka refuses. An absence is not told: other questions tell it.
        """
        try:
            messages = self._consumer.consume(self._most, _POLL_S)
        except KafkaException as error:
            raise mapped(error, f"topic {self._topic}") from None
        records = []
        for message in messages:
            partition, offset, wrong = cast(int, message.partition()), cast(int, message.offset()), message.error()
            if wrong is None:
                self._pass(partition, offset + 1, offset)
                headers = cast(Headers, message.headers() or ())
                timestamp_ms = message.timestamp()[1]
                records.append(Record(partition, offset, timestamp_ms, message.key(), message.value(), headers))
            elif wrong.code() == KafkaError._PARTITION_EOF:
                self._pass(partition, offset)  # markers and aborted records are behind it
            elif not wrong.retriable() and wrong.code() not in _PASSING:
                raise mapped(wrong, f"topic {self._topic}")
        if len(messages) == self._most:
            self._begin_at(ends, last=None)
        return records

    def close(self) -> None:
        self._consumer.close()

    def _begin_at(self, starts: Mapping[int, int], last: int | None) -> None:
        """
        Args:
            last: offset of the newest record before; None: it is taken for the one just before each start.
        """
        self._consumer.assign([TopicPartition(self._topic, partition, at) for partition, at in starts.items()])
        for partition, at in starts.items():
            self.seen[self._topic, partition] = Records(at - 1 if last is None else last, at)

    def _pass(self, partition: int, next_offset: int, last: int | None = None) -> None:
        before = self.seen[self._topic, partition]
        self.seen[self._topic, partition] = Records(before.last if last is None else last, next_offset)


#: The client finds its way back by itself.
_PASSING = (
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TRANSPORT,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._AUTO_OFFSET_RESET,
)
