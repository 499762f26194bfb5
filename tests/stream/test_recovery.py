"""What the bulk load of changelog partitions makes of librdkafka's messages."""

from __future__ import annotations

from confluent_kafka import KafkaError, Message

from stream.recovery import ended


def at_end(partition: int, offset: int) -> Message:
    return Message(topic="sequences", partition=partition, offset=offset, error=KafkaError(KafkaError._PARTITION_EOF))


def test_a_partition_that_ends_twice_in_one_chunk_is_whole_once() -> None:
    """After a reconnect librdkafka may say it again; it once ended a worker."""
    assert ended([at_end(3, 50), at_end(1, 7), at_end(3, 50)], {1: 7, 3: 50}) == {1, 3}


def test_the_end_of_what_is_committed_so_far_is_not_the_end() -> None:
    assert ended([at_end(0, 49), Message(topic="sequences", partition=0, offset=50)], {0: 50}) == set()
