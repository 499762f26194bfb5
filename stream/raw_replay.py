"""A deployment's raw messages of a span of time, sent to another one byte for byte: an incident, replayed.

Value, key and headers as they were, whatever they hold: what was unreadable is so again, a forget request forgets again. They
arrive anew: the broker gives them the time of now, by which `max_future_ms` and `max_age_ms` judge them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from edge.kafka import REQUEST_TIMEOUT_S, Admin, KafkaConfig, make, mapped
from schemas.errors import ConfigError, UnavailableError
from schemas.names import Names
from stream.offsets import offsets_since, start_offsets
from stream.topics import RAW_MAX_MESSAGE_BYTES
from stream.whole_topic import OnProgress, Record, partitions_in, read_spans

DELIVERY_TIMEOUT_S = 60.0
_QUEUE_KBYTES = 64 << 10


@dataclass
class RawReplayReport:
    """
    Attributes:
        messages: that were sent, and acknowledged by all in-sync replicas.
        first_ms, last_ms: when the first and the last of them had arrived, Unix ms; 0 without any.
        removed: partitions of which retention had removed messages before the span's first that is left: some of the span may
            be missing.
    """

    messages: int = 0
    first_ms: int = 0
    last_ms: int = 0
    removed: list[int] = field(default_factory=list)


def replay_raw(
    kafka: KafkaConfig,
    source: str,
    names: Names,
    since_ms: int,
    until_ms: int,
    on_progress: OnProgress | None = None,
) -> RawReplayReport:
    """Send what arrived in the topic `source` in [since_ms, until_ms) to `names.engagements`, on the same cluster.

    Messages of a partition keep their order.

    Raises:
        ConfigError: the span is empty, or the source is where messages would go.
        TopicError, UnavailableError: a topic is missing, Kafka does not answer. Sending again is safe: equal events are one.
    """
    if source == names.engagements:
        raise ConfigError(f"topic {source} cannot be replayed into itself: name another deployment's, or set `prefix`")
    if since_ms >= until_ms:
        raise ConfigError(f"the span ends at {until_ms} ms, which is not after its beginning at {since_ms} ms")
    partitions_in(kafka, names.engagements)  # or nobody would say that it is missing
    admin = Admin(kafka)
    places = [(source, partition) for partition in range(partitions_in(kafka, source))]
    starts, ends = (offsets_since(admin, places, at_ms) for at_ms in (since_ms, until_ms))
    oldest = start_offsets(admin, places)
    report = RawReplayReport(removed=[place[1] for place in places if starts[place] == oldest[place] > 0])
    sender = _Sender(kafka, names.engagements)
    spans = {place[1]: (starts[place], ends[place]) for place in places}
    for chunk in read_spans(kafka, source, spans, on_progress):
        for record in chunk:
            sender.send(record)
        sender.deliver()
        report.messages += len(chunk)
        times = [record.timestamp_ms for record in chunk]
        report.first_ms = min([*times, report.first_ms or times[0]])
        report.last_ms = max([*times, report.last_ms])
    return report


class _Sender:
    def __init__(self, kafka: KafkaConfig, topic: str) -> None:
        self._topic, self._where = topic, f"topic {topic} at {kafka.bootstrap_servers}"
        self._error: KafkaError | None = None
        settings: dict[str, Any] = kafka.client(
            enable_idempotence=True,
            linger_ms=5,
            compression_type="lz4",
            partitioner="murmur2_random",
            message_max_bytes=RAW_MAX_MESSAGE_BYTES,
            message_timeout_ms=int(DELIVERY_TIMEOUT_S * 1000),
            queue_buffering_max_kbytes=_QUEUE_KBYTES,
        )
        self._producer: Producer = make(Producer, settings, kafka)

    def send(self, record: Record) -> None:
        while True:
            try:
                self._producer.produce(
                    self._topic, record.value, record.key, headers=list(record.headers), on_delivery=self._delivered
                )
                break
            except BufferError:  # full: wait for deliveries
                self._producer.poll(0.05)
                self._check()
            except KafkaException as error:
                raise mapped(error, self._where) from None

    def deliver(self) -> None:
        """Returns when everything is acknowledged."""
        left = self._producer.flush(DELIVERY_TIMEOUT_S + REQUEST_TIMEOUT_S)
        self._check()
        if left:
            raise UnavailableError(f"{self._where}: {left} messages are not acknowledged; is Kafka healthy?")

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        self._error = self._error or error

    def _check(self) -> None:
        if self._error is not None:
            self._producer.purge()
            raise mapped(self._error, f"{self._where}: a message was not delivered; send the span again")
