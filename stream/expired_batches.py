"""Packed batches that retention removed before the sequence stage read them: said and counted when a partition is gained.

Faust's consumer goes on at the log's start by itself, and says nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from edge.kafka import Admin
from schemas.errors import UnavailableError
from stream.group_offsets import committed_offsets
from stream.offsets import start_offsets

logger = logging.getLogger(__name__)


def say_expired_batches(
    admin: Admin, group: str, topic: str, partitions: Iterable[int], count: Callable[[int], None]
) -> dict[int, int]:
    """Compare the group's committed offsets with the starts of the logs. Blocking.

    Args:
        count: called with the number of batches that are lost.

    Returns:
        partition -> the oldest offset that its log has; nothing if Kafka does not answer.
    """
    where = [(topic, partition) for partition in partitions]
    try:
        committed, starts = committed_offsets(admin.kafka, group, where), start_offsets(admin, where)
    except UnavailableError as error:  # the work does not depend on it
        logger.warning("%s; whether retention removed batches is not known", error)
        return {}
    for (_, partition), start in starts.items():
        wanted = committed.get((topic, partition))
        if wanted is not None and wanted < start:
            count(start - wanted)
            logger.error(
                "topic %s, partition %d: retention removed %d batches, offsets %d to %d, before a sequence worker read "
                "them: their events are in no sequence. If the raw topic still has them, let ingest read them again "
                "(docs/operations.md); raise the topic's retention.ms or retention.bytes",
                *(topic, partition, start - wanted, wanted, start - 1),
                extra={"topic": topic, "partition": partition, "offset": wanted},
            )
    return {partition: start for (_, partition), start in starts.items()}
