"""Faust's view of the sequences: a table whose recovery and changelog are ours.

Faust finds out which partitions this worker owns, fetches their batches and commits their offsets. What a stock table does,
reading the changelog record by record at a rebalance and sending one changelog record per write, is done in bulk by
stream.ownership: two orders of magnitude faster, and fenced.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import faust
from faust.sensors import Sensor
from faust.stores.base import Store
from faust.types import TP, AppT

from schemas.errors import FencedError
from stream.ownership import Ownership

# Faust's services log their lives under their module's name; these are Faust's business, not ours.
_FAUST_LOGGER = logging.getLogger("faust.slipstream")


class SequenceStore(Store[bytes, bytes]):
    """Answers Faust's questions about recovery so that it has nothing to do."""

    logger = _FAUST_LOGGER

    def __init__(
        self, *args: Any, ownership: Ownership, source_topic: str, fail: Callable[[BaseException], None], **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        self._ownership = ownership
        self._source_topic = source_topic
        self._fail = fail

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        try:
            await self._ownership.rebalance({tp.partition for tp in assigned if tp.topic == self._source_topic})
        except Exception as error:
            self._fail(error)

    def persisted_offset(self, tp: TP) -> int | None:
        """The changelog's last offset, for every partition of ours: Faust waits for the last record before it goes on, and
        that may be a transaction's marker, which no reader ever gets."""
        end = self._ownership.end_offset(tp.partition)
        return end - 1 if end else None

    def apply_changelog_batch(
        self, batch: Iterable[Any], to_key: Callable[[Any], Any], to_value: Callable[[Any], Any]
    ) -> None:
        """Faust read a changelog record by itself: one that somebody else wrote since we loaded the table. A worker that stood
        still may have lost a partition and got it back at its next rebalance, and not have heard of the first; its table lacks
        what was written between, and its writer is fenced."""
        if events := list(batch):
            message = events[0].message
            self._fail(
                FencedError(
                    f"topic {message.tp.topic}, partition {message.tp.partition}: offset {message.offset} was written by another "
                    "worker, while this one was silent: another worker owns it now, or did; start this one again"
                )
            )

    def __getitem__(self, user: bytes) -> bytes:
        for partition in self._ownership.partitions:
            table = self._ownership.committer(partition).table
            if table is not None and (value := table.get_many([user])[0]) is not None:
                return value
        raise KeyError(user)

    def __setitem__(self, user: bytes, value: bytes) -> None:
        raise TypeError("sequences are written by their partition's committer alone")

    def __delitem__(self, user: bytes) -> None:
        raise TypeError("sequences are removed by their partition's committer alone")

    def __iter__(self) -> Iterator[bytes]:
        for partition in self._ownership.partitions:
            if (table := self._ownership.committer(partition).table) is not None:
                yield from (user for user, _ in table.items())

    def __len__(self) -> int:
        return self._ownership.users

    # Nothing of what Faust would keep on disk.
    def reset_state(self) -> None: ...

    async def backup_partition(self, tp: TP | int, flush: bool = True, purge: bool = False, keep: int = 1) -> None: ...

    def restore_backup(self, tp: TP | int, latest: bool = True, backup_id: int = 0) -> None: ...


class SequenceTable(faust.Table):  # type: ignore[type-arg]
    """The table `sequences`. Read-only to agents."""

    logger = _FAUST_LOGGER

    def __init__(
        self, app: AppT, ownership: Ownership, source_topic: str, fail: Callable[[BaseException], None], **kwargs: Any
    ):
        self._store_arguments: dict[str, Any] = {"ownership": ownership, "source_topic": source_topic, "fail": fail}
        super().__init__(app, **kwargs)

    def _new_store(self) -> SequenceStore:
        return SequenceStore("memory://", self.app, self, table_name=self.name, **self._store_arguments)

    def on_key_set(self, key: Any, value: Any) -> None:
        raise TypeError("sequences are written by their partition's committer alone")

    on_key_del: Any = on_key_set


class RebalanceSensor(Sensor):
    """Tells the ownership when a rebalance begins and ends. Faust calls the first from its consumer's thread."""

    logger = _FAUST_LOGGER

    def __init__(self, ownership: Ownership, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._ownership = ownership
        self._owners_loop = loop

    def on_rebalance_start(self, app: AppT) -> dict[str, Any]:
        self._owners_loop.call_soon_threadsafe(self._ownership.begin_rebalance)
        return {}

    def on_rebalance_end(self, app: AppT, state: dict[str, Any]) -> None:
        self._owners_loop.call_soon_threadsafe(self._ownership.end_rebalance)
