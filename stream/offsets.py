"""End offsets, with and without transactions that are still open."""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from stream.kafka import REQUEST_TIMEOUT_S, Admin


def end_offsets(
    admin: Admin, partitions: Iterable[tuple[str, int]], committed_only: bool = False
) -> dict[tuple[str, int], int]:
    """The offset that the next record of each (topic, partition) will get.

    Transaction markers take offsets too. With `committed_only` it is the last stable offset: where a reader of committed
    records must stop while a transaction is open.

    Raises:
        TopicError, UnavailableError: a partition is not there, or Kafka does not answer.
    """
    level = IsolationLevel.READ_COMMITTED if committed_only else IsolationLevel.READ_UNCOMMITTED
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    request = {TopicPartition(topic, partition): latest for topic, partition in partitions}
    if not request:
        return {}
    futures = admin.client.list_offsets(request, isolation_level=level, request_timeout=REQUEST_TIMEOUT_S)
    ends = {}
    for where, future in futures.items():
        try:
            ends[where.topic, where.partition] = future.result().offset
        except KafkaException as error:
            raise admin.failed(error, f"end of topic {where.topic}, partition {where.partition}") from None
    return ends
