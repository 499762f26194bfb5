"""Forgetting a user, from outside: the request, and the place in the changelog where it has taken effect."""

from __future__ import annotations

import time
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from edge.kafka import Admin, KafkaConfig, make, mapped
from schemas.errors import ConfigError, UnavailableError
from schemas.event import MAX_USER_BYTES, encode_forget
from schemas.names import Names, readers_group
from schemas.sequence import decode_sequence
from stream.offsets import end_offsets
from stream.partitioner import partitions_of
from stream.topics import partition_counts

_DELIVERY_S = 30.0


class Requested(NamedTuple):
    """A request that Kafka has acknowledged.

    Attributes:
        before_ms: what happened until then, inclusive, goes.
        partition: the user's, in the changelog.
        changelog_end: where the changelog ended before the request was sent.
    """

    user: str
    before_ms: int
    partition: int
    changelog_end: int


def request_forget(kafka: KafkaConfig, names: Names, user: str, before_ms: int) -> Requested:
    """Send the request to the raw topic; returns when all in-sync replicas have it.

    Raises:
        ConfigError: no user can have this id.
        TopicError, UnavailableError: a topic is missing, or Kafka does not answer.
    """
    key = user.encode()
    if not 0 < len(key) <= MAX_USER_BYTES:
        raise ConfigError(f"a user id must have 1 to {MAX_USER_BYTES} bytes of UTF-8, not {len(key)}")
    admin, changelog = Admin(kafka), names.sequences
    partition = int(partitions_of([key], partition_counts(admin, [changelog])[changelog])[0])
    end = end_offsets(admin, [(changelog, partition)])[changelog, partition]
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    producer: Producer = make(
        Producer,
        kafka.client(enable_idempotence=True, partitioner="murmur2_random", message_timeout_ms=int(_DELIVERY_S * 1000)),
        kafka,
    )
    producer.produce(names.engagements, encode_forget(user, before_ms), key, on_delivery=delivered)
    if producer.flush(_DELIVERY_S + 1) or failures:
        cause = failures[0] if failures else KafkaError(KafkaError._TIMED_OUT)
        raise mapped(cause, f"topic {names.engagements}: the request to forget {user!r} was not delivered")
    return Requested(user, before_ms, partition, end)


def wait_until_forgotten(kafka: KafkaConfig, names: Names, request: Requested, timeout_s: float) -> int:
    """The changelog offset from which on the user's sequence holds nothing of before the request.

    Raises:
        UnavailableError: not within the time: the stages are behind, or do not run; or the user had been forgotten until a later
            time already, so that nothing is left to write.
    """
    key, topic = request.user.encode(), names.sequences
    consumer: Consumer = make(
        Consumer,
        kafka.client(
            group_id=readers_group(topic),
            enable_auto_commit=False,
            isolation_level="read_committed",
            fetch_wait_max_ms=50,
        ),
        kafka,
    )
    deadline = time.monotonic() + timeout_s
    try:
        consumer.assign([TopicPartition(topic, request.partition, request.changelog_end)])
        while time.monotonic() < deadline:
            message = consumer.poll(0.1)
            if message is None or message.key() != key:
                continue
            if (error := message.error()) is not None:
                raise mapped(error, f"topic {topic}, partition {request.partition} cannot be read")
            value, offset = message.value(), message.offset()
            assert offset is not None
            if value is None or decode_sequence(value).forgotten_before_ms >= request.before_ms:
                return offset
    except KafkaException as error:
        raise mapped(error, f"topic {topic}, partition {request.partition} cannot be read") from None
    finally:
        consumer.close()
    raise UnavailableError(
        f"user {request.user!r} is not forgotten in topic {topic}, partition {request.partition}, after {timeout_s:.0f} s: do "
        "ingest and sequence workers run, and what is their lag? The request is in Kafka and will be carried out"
    )
