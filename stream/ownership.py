"""The partitions that this worker owns: each with its fenced writer, its table and its committer.

A gained partition goes through: fence (no other worker can write it any more) -> find the changelog's end -> load, in a thread,
while Faust already fetches -> commit. Nothing of it is read or written before its table is whole.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edge.allocator import return_freed_memory
from edge.kafka import Admin
from schemas.errors import UnavailableError
from stream.changelog import ChangelogWriter
from stream.committer import Committer
from stream.config import SequenceConfig
from stream.expired_batches import say_expired_batches
from stream.memory_budget import MemoryBudget
from stream.metrics import SequenceMetrics
from stream.offsets import end_offsets
from stream.recovery import Ends, Loaded, load_partitions
from stream.sequence_traces import SequenceTraces
from stream.store import Stores

logger = logging.getLogger(__name__)

#: New sequences of all partitions' transactions under way.
_TRANSACTIONS_BYTES = 256 << 20


@dataclass
class _Owned:
    committer: Committer
    end_offset: int = 0
    source_start: int = 0
    #: Ends the loading of the partitions that were gained together with this one and are still loading.
    stop_loading: threading.Event = field(default_factory=threading.Event)


class Ownership:
    """All calls come from one event loop. `fail` ends the process: after an error nothing may be acknowledged or written."""

    def __init__(
        self,
        config: SequenceConfig,
        metrics: SequenceMetrics,
        stores: Stores,
        fail: Callable[[BaseException], None],
        traces: SequenceTraces | None = None,
    ) -> None:
        self._traces = traces
        self._stores = stores
        self._kafka = kafka = config.kafka
        self._names = config.names
        self._capacity = config.capacity
        self._compression = config.compression
        self._memory = MemoryBudget(_TRANSACTIONS_BYTES)
        self._timeout_s = config.give_up_after_s
        self._metrics = metrics
        self._fail = fail
        self._admin = Admin(kafka)
        self._owned: dict[int, _Owned] = {}
        # What uses tables that no committer has: loads, with the events that end them, and closes of what was loaded in vain.
        self._loads: dict[asyncio.Task[None], threading.Event] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._rebalancing = True

    @property
    def partitions(self) -> list[int]:
        return sorted(self._owned)

    @property
    def loading(self) -> list[int]:
        return [partition for partition, owned in sorted(self._owned.items()) if owned.committer.table is None]

    @property
    def users(self) -> int:
        tables = [owned.committer.table for owned in self._owned.values()]
        return sum(len(table) for table in tables if table is not None)

    def committer(self, partition: int) -> Committer:
        return self._owned[partition].committer

    def end_offset(self, partition: int) -> int | None:
        """The changelog's end at the last rebalance, None for another worker's partition."""
        owned = self._owned.get(partition)
        return owned.end_offset if owned else None

    def source_start(self, partition: int) -> int:
        """The oldest offset that `engagement-batches` had when the partition was gained; 0 for another worker's partition."""
        owned = self._owned.get(partition)
        return owned.source_start if owned else 0

    def begin_rebalance(self) -> None:
        """Partitions may go: what still loads gives its queue back, so that nothing is waited for."""
        self._rebalancing = True
        for partition in self.loading:
            self._owned[partition].committer.discard_queue()

    def end_rebalance(self) -> None:
        self._rebalancing = False

    async def rebalance(self, mine: set[int]) -> None:
        """Become the owner of exactly these partitions.

        Raises:
            UnavailableError: Kafka does not answer in time.
        """
        lost, gained = sorted(self._owned.keys() - mine), sorted(mine - self._owned.keys())
        leaving = [self._owned.pop(partition) for partition in lost]
        for owned in leaving:
            owned.stop_loading.set()
        await asyncio.gather(*[owned.committer.close() for owned in leaving])
        writers = await asyncio.gather(*[self._open_writer(partition) for partition in gained])
        for partition, writer in zip(gained, writers, strict=True):
            committer = Committer(
                partition,
                writer,
                self._metrics,
                self._capacity,
                self._names.dead_letters,
                self._memory,
                self._fail,
                self._traces,
            )
            self._owned[partition] = _Owned(committer)
        for owned in self._owned.values():
            await owned.committer.settle()
        ends = await self._settled_ends(sorted(self._owned))
        for partition, end in ends.offsets.items():
            self._owned[partition].end_offset = end
        for owned in self._owned.values():
            owned.committer.accept_again()
        self._metrics.partitions.set(len(self._owned))
        # With a lost partition its loader ended: the others that it had not finished begin again.
        again = [p for p in self.loading if p in gained or self._owned[p].stop_loading.is_set()]
        self._load(Ends({partition: ends.offsets[partition] for partition in again}, ends.as_of_ms))
        if gained:
            batches, count = self._names.batches, self._metrics.expired_batches.inc
            starts = await asyncio.to_thread(
                say_expired_batches, self._admin, self._names.sequence_app, batches, gained, count
            )
            for partition, start in starts.items():
                self._owned[partition].source_start = start
        if lost and mine:
            del leaving  # their tables were among what stays: steps of 15 MB in a soak, which nothing gave back
            self._in_background(return_freed_memory)
        if lost or gained:
            logger.info("partitions %s: got %s, gave up %s", self.partitions, gained, lost)

    async def _open_writer(self, partition: int) -> ChangelogWriter:
        names = self._names
        ids = names.sequence_transactional_ids(partition)
        return await ChangelogWriter.open(
            self._kafka, names.sequences, partition, ids, self._timeout_s, self._compression
        )

    async def _settled_ends(self, partitions: list[int]) -> Ends:
        """The changelog's ends, once the markers of our last transactions are written: then nothing moves them but us."""
        where = [(self._names.sequences, partition) for partition in partitions]
        deadline = time.monotonic() + self._timeout_s
        while True:
            as_of_ms = int(time.time() * 1000)
            ends = await asyncio.to_thread(end_offsets, self._admin, where)
            stable = await asyncio.to_thread(end_offsets, self._admin, where, committed_only=True)
            if ends == stable:
                return Ends({partition: end for (_, partition), end in ends.items()}, as_of_ms)
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"topic {self._names.sequences}: a transaction stays open on partitions "
                    f"{[w[1] for w in where if ends[w] != stable[w]]} for {self._timeout_s:.0f} s"
                )
            await asyncio.sleep(0.005)

    def _load(self, ends: Ends) -> None:
        if not ends.offsets:
            return
        stop = threading.Event()
        for partition in ends.offsets:
            self._owned[partition].stop_loading = stop
        loop = asyncio.get_running_loop()
        ending = [task for task, stopped in self._loads.items() if stopped.is_set()]

        def on_loaded(loaded: Loaded) -> None:
            loop.call_soon_threadsafe(self._loaded, loaded, stop)

        async def load() -> None:
            try:
                await asyncio.gather(*ending)  # they may have these partitions' tables open
                await self._settled()
                await asyncio.to_thread(
                    load_partitions,
                    self._kafka,
                    self._names.sequences,
                    self._stores,
                    ends,
                    on_loaded,
                    stop,
                    self._timeout_s,
                )
            except Exception as error:
                self._fail(error)

        task = asyncio.create_task(load(), name="load-changelog")
        self._loads[task] = stop
        task.add_done_callback(self._loads.pop)

    def _in_background(self, work: Callable[[], None]) -> None:
        task = asyncio.create_task(asyncio.to_thread(work), name="behind-a-rebalance")
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _settled(self) -> None:
        while self._background:
            await asyncio.gather(*self._background)

    def _loaded(self, loaded: Loaded, stop: threading.Event) -> None:
        owned = self._owned.get(loaded.partition)
        if owned is None or owned.stop_loading is not stop:  # given up meanwhile
            self._in_background(loaded.table.close)
            return
        self._metrics.recovered_records.inc(loaded.records)
        self._metrics.recovery_s.set(loaded.seconds)
        for damaged in loaded.damaged:
            where = damaged.provenance
            logger.error("%s: %s; it goes to the dead letters", where, damaged.error, extra=where._asdict())
        logger.info(
            "partition %d: %s%d users from %d changelog records, read from offset %d on, in %.1f s",
            loaded.partition,
            "about " if loaded.table.blocks else "",
            len(loaded.table),
            loaded.records,
            loaded.from_offset,
            loaded.seconds,
            extra={"topic": self._names.sequences, "partition": loaded.partition},
        )
        owned.committer.start(loaded.table, loaded.damaged)

    def expire_markers(self, before_ms: int) -> None:
        """Not while a rebalance goes on: the changelog's ends must stay where they are."""
        if not self._rebalancing:
            for owned in self._owned.values():
                if owned.committer.table is not None:
                    owned.committer.expire_markers(before_ms)

    async def close(self) -> None:
        await self.rebalance(set())
        await asyncio.gather(*self._loads)
        await self._settled()
