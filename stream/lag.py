"""How far a consumer group is behind, seen from outside."""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaError, TopicPartition

from edge.kafka import Admin, KafkaConfig, make
from schemas.names import readers_group
from stream.group_offsets import committed_offsets
from stream.offsets import end_offsets
from stream.topics import partition_counts

#: A lag up to this is looked at closely: it may be transaction markers, which nobody ever reads.
_CLOSE = 200
_LOOK_S = 2.0


def group_lag(
    admin: Admin, group: str, topics: Sequence[str], transactional: KafkaConfig | None = None
) -> dict[tuple[str, int], int]:
    """Offsets between what the group has committed and the end, per (topic, partition).

    A partition without a committed offset counts from offset 0: for a topic whose oldest records are gone it is too high.

    Args:
        transactional: given for topics written in transactions, such as the changelog: small lags are then counted in records, by
            reading them, since the marker after the last record would look like a record for ever.

    Raises:
        TopicError, UnavailableError: a topic is not there, or Kafka does not answer.
    """
    counts = partition_counts(admin, list(topics))
    where = [(topic, partition) for topic, n in counts.items() for partition in range(n)]
    ends = end_offsets(admin, where)
    committed = committed_offsets(admin.kafka, group, where)
    lag = {w: max(0, ends[w] - committed.get(w, 0)) for w in where}
    if transactional is not None:
        close = {w: committed.get(w, 0) for w, n in lag.items() if 0 < n <= _CLOSE}
        lag |= _count_records(transactional, close, {w: lag[w] for w in close})
    return lag


def _count_records(
    kafka: KafkaConfig, starts: dict[tuple[str, int], int], most: dict[tuple[str, int], int]
) -> dict[tuple[str, int], int]:
    """Committed records from each start to the end of the log; `most` where they cannot be read in time."""
    if not starts:
        return {}
    settings = kafka.client(
        group_id=readers_group(next(iter(starts))[0]),
        enable_auto_commit=False,
        enable_partition_eof=True,
        isolation_level="read_committed",
        fetch_wait_max_ms=10,
    )
    consumer: Consumer = make(Consumer, settings, kafka)
    counts = dict.fromkeys(starts, 0)
    reading = set(starts)
    try:
        consumer.assign([TopicPartition(topic, partition, start) for (topic, partition), start in starts.items()])
        for message in iter(lambda: consumer.poll(_LOOK_S) if reading else None, None):
            w = (str(message.topic()), int(message.partition() or 0))
            if (error := message.error()) is None:
                counts[w] += 1
            elif error.code() == KafkaError._PARTITION_EOF:
                reading.discard(w)
    finally:
        consumer.close()
    return {w: most[w] if w in reading else n for w, n in counts.items()}
