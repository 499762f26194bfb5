"""What a consumer group has committed, asked and set from outside the group.

Not by AdminClient.list_consumer_group_offsets: librdkafka 2.16 follows a null pointer, and the whole process dies with a
segmentation fault, when the broker answers that the group's coordinator is another one now, as after any broker's restart
(rd_kafka_handle_OffsetFetch; seen with confluent-kafka 2.16.0). A consumer that never subscribes asks the same without joining.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaException, TopicPartition

from edge.kafka import REQUEST_TIMEOUT_S, KafkaConfig, make, mapped
from edge.process import in_time
from schemas.errors import UnavailableError


def committed_offsets(
    kafka: KafkaConfig, group: str, partitions: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], int]:
    """What the group has committed of these (topic, partition), where it has; nothing if there is no such group.

    Raises:
        UnavailableError: Kafka does not answer.
    """
    return {where: found.offset for where, found in committed(kafka, group, partitions).items()}


class Committed(NamedTuple):
    """
    Attributes:
        metadata: what the committer left beside the offset; empty: nothing.
    """

    offset: int
    metadata: str


def committed(
    kafka: KafkaConfig, group: str, partitions: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], Committed]:
    """The same, with what was left beside the offsets.

    Raises:
        UnavailableError: Kafka does not answer.
    """
    asked = [TopicPartition(topic, partition) for topic, partition in partitions]
    with _outsider(kafka, group) as consumer:
        found = consumer.committed(asked, timeout=REQUEST_TIMEOUT_S)
    return {
        (p.topic, p.partition): Committed(p.offset, p.metadata or "")
        for p in found
        if p.error is None and p.offset >= 0
    }


def commit_offsets(kafka: KafkaConfig, group: str, offsets: Mapping[tuple[str, int], int]) -> None:
    """Commit for a group without members.

    Raises:
        UnavailableError: Kafka does not answer.
        SlipstreamError: it refuses.
    """
    positions = [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]
    answers: list[TopicPartition] = []
    with _outsider(kafka, group) as consumer:

        def commit() -> None:
            answers.extend(consumer.commit(offsets=positions, asynchronous=False) or [])

        if not in_time(REQUEST_TIMEOUT_S, commit):
            raise UnavailableError(
                f"Kafka at {kafka.bootstrap_servers}, offsets of group {group}: no answer within {REQUEST_TIMEOUT_S:.0f} s"
            )
    for answer in answers:
        if answer.error is not None:
            raise mapped(answer.error, f"offset of group {group}, topic {answer.topic}, partition {answer.partition}")


@contextmanager
def _outsider(kafka: KafkaConfig, group: str) -> Iterator[Consumer]:
    consumer: Consumer = make(Consumer, kafka.client(group_id=group, enable_auto_commit=False), kafka)
    try:
        yield consumer
    except KafkaException as error:
        raise mapped(error, f"Kafka at {kafka.bootstrap_servers}, offsets of group {group}") from None
    finally:
        in_time(REQUEST_TIMEOUT_S, consumer.close)
