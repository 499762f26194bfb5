"""A worker's databases, one directory for each partition: opened where they can be gone on with, made anew where not."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from edge.kafka import Admin, KafkaConfig, topic_id
from schemas.errors import SequenceError, StoreError
from schemas.sequence_store import Kept
from stream.kept import ChangelogState, why_unusable
from stream.offsets import start_offsets
from stream.store import Opened, Stores
from stream.store_rocksdb import DamagedError, Memory, RocksTable, condemned
from stream.topics import topic_settings

logger = logging.getLogger(__name__)


class RocksStores(Stores):
    """Databases below a directory that is this worker's alone.

    Args:
        memory_bytes: of all of them together, for blocks and what is not written to disk yet.
    """

    def __init__(self, kafka: KafkaConfig, topic: str, directory: Path, memory_bytes: int) -> None:
        self._kafka = kafka
        self._topic = topic
        self._directory = directory
        self._memory = Memory(memory_bytes)
        self._admin = Admin(kafka)

    def open(self, ends: Mapping[int, int], as_of_ms: int) -> dict[int, Opened]:
        identity = topic_id(self._kafka, self._topic)
        starts = start_offsets(self._admin, [(self._topic, partition) for partition in ends])
        retention_ms = _delete_retention_ms(self._admin, self._topic)
        opened: dict[int, Opened] = {}
        try:
            for partition, end in ends.items():
                start = starts[self._topic, partition]
                state = ChangelogState(identity, partition, start, end, retention_ms, as_of_ms)
                opened[partition] = self._open(state)
        except BaseException:
            for table, _ in opened.values():
                table.close()
            raise
        return opened

    def directory_of(self, partition: int) -> Path:
        return self._directory / f"{self._topic}-{partition}"

    def _open(self, changelog: ChangelogState) -> Opened:
        directory = self.directory_of(changelog.partition)
        if directory.exists():
            found = self._gone_on_with(directory, changelog)
            if isinstance(found, Opened):
                return found
            logger.warning(
                "partition %d: the table in %s is made anew from the changelog: %s",
                changelog.partition,
                directory,
                found,
                extra={"topic": self._topic, "partition": changelog.partition},
            )
            try:
                shutil.rmtree(directory)
            except OSError as error:
                raise StoreError(f"{directory} cannot be removed: {error.strerror}; remove it yourself") from None
        table = RocksTable(directory, self._memory)
        table.begin(Kept(changelog.topic_id, changelog.partition, 0, changelog.now_ms))
        return Opened(table, 0)

    def _gone_on_with(self, directory: Path, changelog: ChangelogState) -> Opened | str:
        """The table as it was left, or the reason not to use it."""
        if (reason := condemned(directory)) is not None:
            return reason
        try:
            table = RocksTable(directory, self._memory)
        except DamagedError as damage:
            return str(damage)
        try:
            kept = table.kept()
        except (DamagedError, SequenceError) as wrong:
            table.discard()
            return str(wrong)
        reason = "it does not say what it is of" if kept is None else why_unusable(kept, changelog)
        if kept is None or reason is not None:
            table.discard()
            return str(reason)
        return Opened(table, kept.next_offset)


def _delete_retention_ms(admin: Admin, topic: str) -> int | None:
    """For how long the topic keeps tombstones at least; None without the right to know."""
    settings = topic_settings(admin, [topic])[topic]
    return int(settings["delete.retention.ms"]) if settings and "delete.retention.ms" in settings else None
