"""Dead letters removed. Kafka removes records of a partition only from its beginning up to an offset (DeleteRecords)."""

from __future__ import annotations

from collections import Counter

from confluent_kafka import KafkaException, TopicPartition

from edge.kafka import REQUEST_TIMEOUT_S, Admin, KafkaConfig
from schemas.names import Names
from stream.letters import Place, Spans, all_letters, read_letter, read_letters


def spans_before(kafka: KafkaConfig, names: Names, timestamp_ms: int | None = None) -> Spans:
    """All letters buried before `timestamp_ms` (None: that there are now), up to the first one of each partition that was not.

    Raises:
        TopicError, UnavailableError: the topic is missing, or Kafka does not answer.
    """
    first = {partition: start for partition, (start, _) in all_letters(kafka, names).items()}
    ends = {partition: end for partition, (_, end) in all_letters(kafka, names, until_ms=timestamp_ms).items()}
    return {partition: (start, max(start, ends[partition])) for partition, start in first.items()}


def spans_up_to(kafka: KafkaConfig, names: Names, place: Place) -> Spans:
    """The letters of the place's partition up to this one, which is among them.

    Raises:
        ConfigError: there is no letter at the place.
        TopicError, UnavailableError: the topic is missing, or Kafka does not answer.
    """
    read_letter(kafka, names, place)
    start, _ = all_letters(kafka, names)[place.partition]
    return {place.partition: (start, place.offset + 1)}


def count_by_reason(kafka: KafkaConfig, names: Names, spans: Spans) -> Counter[str]:
    """How many letters of which reason are there."""
    return Counter(letter.reason for letters in read_letters(kafka, names, spans) for letter in letters)


def drop(kafka: KafkaConfig, names: Names, spans: Spans) -> dict[int, int]:
    """Remove what lies in, and before, these spans: partition -> its first offset now. What came after them stays.

    Raises:
        TopicError: the user may not delete records.
        UnavailableError: Kafka does not answer.
        SlipstreamError: Kafka refuses.
    """
    admin, topic = Admin(kafka), names.dead_letters
    request = [TopicPartition(topic, partition, end) for partition, (start, end) in spans.items() if start < end]
    if not request:
        return {}
    futures = admin.client.delete_records(request, request_timeout=REQUEST_TIMEOUT_S)
    removed = {}
    for where, future in futures.items():
        try:
            removed[where.partition] = future.result().low_watermark
        except KafkaException as error:
            raise admin.failed(error, f"records of topic {topic}, partition {where.partition} not deleted") from None
    return removed
