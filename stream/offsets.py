"""Where partitions begin and end, with and without transactions that are still open."""

from __future__ import annotations

import time
from collections.abc import Iterable

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from edge.kafka import REQUEST_TIMEOUT_S, Admin

#: Of a topic that was just created, or a broker that just went or came back: the client knows better in a moment.
_NO_LEADER = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError._NOENT,  # librdkafka's "No leaders found"
)


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
    return _listed(admin, partitions, OffsetSpec.latest(), level, "end")  # type: ignore[no-untyped-call]


def start_offsets(admin: Admin, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """The offset of the oldest record that each (topic, partition) still has, or would have.

    Raises:
        TopicError, UnavailableError: a partition is not there, or Kafka does not answer.
    """
    level = IsolationLevel.READ_UNCOMMITTED
    return _listed(admin, partitions, OffsetSpec.earliest(), level, "start")  # type: ignore[no-untyped-call]


def offsets_since(admin: Admin, partitions: Iterable[tuple[str, int]], timestamp_ms: int) -> dict[tuple[str, int], int]:
    """The offset of the first record of each (topic, partition) with a timestamp of `timestamp_ms` or later; its end if none has.

    Raises:
        TopicError, UnavailableError: a partition is not there, or Kafka does not answer.
    """
    partitions = list(partitions)
    ends = end_offsets(admin, partitions, committed_only=True)
    spec = OffsetSpec.for_timestamp(timestamp_ms)
    found = _listed(admin, partitions, spec, IsolationLevel.READ_COMMITTED, f"offset at {timestamp_ms} ms")
    return {where: offset if offset >= 0 else ends[where] for where, offset in found.items()}


def _listed(
    admin: Admin, partitions: Iterable[tuple[str, int]], spec: OffsetSpec, level: IsolationLevel, what: str
) -> dict[tuple[str, int], int]:
    request = {TopicPartition(topic, partition): spec for topic, partition in partitions}
    offsets = {}
    give_up_s = time.monotonic() + REQUEST_TIMEOUT_S
    while request:
        futures = admin.client.list_offsets(request, isolation_level=level, request_timeout=REQUEST_TIMEOUT_S)
        for where, future in futures.items():
            try:
                offsets[where.topic, where.partition] = future.result().offset
                del request[where]
            except KafkaException as error:
                if error.args[0].code() not in _NO_LEADER or time.monotonic() > give_up_s:
                    raise admin.failed(error, f"{what} of topic {where.topic}, partition {where.partition}") from None
        if request:
            time.sleep(0.1)
            admin.reconnect()  # librdkafka 2.16 may ask with the leader epoch of before a broker's restart for ever
    return offsets
