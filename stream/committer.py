"""Group commit: all that is queued for a partition goes into one transaction.

A transaction costs some 5 ms whatever is in it, so one per batch would bound a partition to about a hundred batches a second. So
while one is under way the next ones queue, and go together. The order in which things become durable:

    1 take      what is queued, oldest first
    2 merge     into the partition's sequences (stream.merge)
    3 commit    the changed sequences, and batches that cannot be read as dead letters, in one transaction
    4 remember  them in the table
    5 ack       the batches, so that their source offsets may be committed

A crash between any two steps repeats the batches after the last committed source offset, which changes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, ParamSpec, TypeVar

from schemas.batch import Batch, decode_batch
from schemas.errors import BatchError
from schemas.sequence import HEADER_BYTES, RECORD_BYTES
from stream.batch_queue import BatchQueue, Pending
from stream.changelog import NO_HEADERS, ChangelogWriter, Letter, RecordHeaders, Write, Written
from stream.dead_letters import BAD_BATCH, BAD_SEQUENCE, dead_letter_headers
from stream.memory_budget import MemoryBudget
from stream.merge import combine, merge_many
from stream.metrics import SequenceMetrics
from stream.recovery import Damaged
from stream.sequence_traces import SequenceTraces
from stream.store import PartitionTable

P = ParamSpec("P")
T = TypeVar("T")

#: New sequences of one transaction, at most. The more events of a backlog go into one, the fewer times a user's sequence is
#: written: with 100 thousand users of 256 events, a limit of 90 MiB instead of 11 made an event 3.7 times cheaper.
MAX_TRANSACTION_BYTES = 128 << 20


class Committer:
    """One partition's queue and the task that empties it. `table` is the partition's, whole."""

    def __init__(
        self,
        partition: int,
        writer: ChangelogWriter,
        metrics: SequenceMetrics,
        capacity: int,
        dead_letters_topic: str,
        memory: MemoryBudget,
        fail: Callable[[BaseException], None],
        traces: SequenceTraces | None = None,
    ) -> None:
        self._traces = traces
        self._partition = partition
        self._writer = writer
        self._metrics = metrics
        self._capacity = capacity
        self._sequence_bytes = HEADER_BYTES + capacity * RECORD_BYTES
        self._dead_letters_topic = dead_letters_topic
        self._memory = memory
        self._fail = fail
        self._queue = BatchQueue()
        self._busy = asyncio.Lock()  # from before a transaction until the table has it, too
        self._wake = asyncio.Event()
        self._expire_before_ms: int | None = None
        self._damaged: list[Damaged] = []
        self._task: asyncio.Task[None] | None = None
        self.table: PartitionTable | None = None

    async def put(self, pending: Pending) -> None:
        """Queue a message; waits while the queue is full."""
        await self._queue.put(pending)
        self._wake.set()

    def start(self, table: PartitionTable, damaged: list[Damaged]) -> None:
        """The table is whole: begin to empty the queue."""
        self.table = table
        self._damaged = damaged
        self._wake.set()
        self._task = asyncio.create_task(self._run(table), name=f"committer-{self._partition}")

    def discard_queue(self) -> None:
        """Give back what waits, until `accept_again`: the table is not whole, and the partition may go."""
        self._queue.discard()

    def accept_again(self) -> None:
        self._queue.discarding = False

    def expire_markers(self, before_ms: int) -> None:
        """Remove the markers of users forgotten before, when the queue is next empty."""
        self._expire_before_ms = before_ms
        self._wake.set()

    async def settle(self) -> None:
        """Returns when no transaction is under way; with an empty queue none begins until the next call of another method."""
        self._expire_before_ms = None
        async with self._busy:
            pass

    async def close(self) -> None:
        """Stop. Nothing is queued any more, or it is another worker's by now."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.discard_queue()
        await self._writer.close()
        if self.table is not None:
            await _called(self.table, self.table.close)

    async def _run(self, table: PartitionTable) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                async with self._busy:
                    await self._bury_damaged()
                while self._queue:
                    async with self._busy:
                        await self._commit(table)
                if self._expire_before_ms is not None:
                    async with self._busy:
                        await self._expire(table)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._fail(error)
            raise

    async def _commit(self, table: PartitionTable) -> None:
        # 1 take
        waiting = self._queue.take()
        taken, batches, letters, users = _decoded(waiting, max(1, MAX_TRANSACTION_BYTES // self._sequence_bytes))
        self._queue.put_back(waiting[len(taken) :])
        traced = self._traces.begin(taken) if self._traces else None
        async with self._memory.held(users * self._sequence_bytes):
            # 2 merge
            writes = await self._merged(batches, table)
            # 3 commit
            begun_ms = int(time.time() * 1000)
            headers = traced.sending(writes) if traced else NO_HEADERS
            written = await self._transact(writes, letters, headers)
            # 4 remember
            await self._remember(table, writes, written, begun_ms)
        # 5 ack
        for pending in taken:
            pending.ack()
        if traced:
            traced.end()
        self._count(batches, writes, letters)

    async def _merged(self, batches: list[Batch], table: PartitionTable) -> list[Write]:
        if not batches:
            return []
        news = combine(batches)
        old = await _called(table, table.get_many, news.users)
        merged = merge_many(old, news, self._capacity)
        arrived = news.arrived_ms.tolist()
        return [
            Write(user, value, at)
            for user, value, at in zip(news.users, merged, arrived, strict=True)
            if value is not None
        ]

    async def _transact(
        self, writes: list[Write], letters: list[Letter], headers: Mapping[bytes, RecordHeaders] = NO_HEADERS
    ) -> Written:
        if not writes and not letters:
            return Written(0, None)
        started = time.perf_counter()
        written = await self._writer.write(writes, letters, self._dead_letters_topic, headers)
        self._metrics.transaction_s.observe(time.perf_counter() - started)
        self._metrics.transaction_users.observe(len(writes))
        self._metrics.changelog_bytes.inc(written.size_bytes)
        return written

    async def _remember(self, table: PartitionTable, writes: list[Write], written: Written, begun_ms: int) -> None:
        """No other worker could write until the transaction was committed: what is not in the table came after it began."""
        if writes:
            as_of_ms = None if written.next_offset is None else begun_ms
            await _called(table, table.put_many, writes, written.next_offset, as_of_ms)

    def _count(self, batches: list[Batch], writes: list[Write], letters: list[Letter]) -> None:
        self._metrics.stage.messages.inc(len(batches) + len(letters))
        self._metrics.records.inc(sum(len(batch.records) for batch in batches))
        self._metrics.users_written.inc(len(writes))
        if letters:
            self._metrics.dead_letters.labels(BAD_BATCH).inc(len(letters))
        if writes:
            oldest_ms = min(write.timestamp_ms for write in writes)
            self._metrics.stage.freshness.observe(max(0.0, time.time() - oldest_ms / 1000))

    async def _expire(self, table: PartitionTable) -> None:
        before_ms, self._expire_before_ms = self._expire_before_ms, None
        if before_ms is None:  # settled meanwhile
            return
        now_ms = int(time.time() * 1000)
        tombstones = [Write(user, None, now_ms) for user in table.expired_markers(before_ms)]
        await self._remember(table, tombstones, await self._transact(tombstones, []), now_ms)
        self._metrics.tombstones.inc(len(tombstones))

    async def _bury_damaged(self) -> None:
        damaged, self._damaged = self._damaged, []
        letters = [
            Letter(d.key, d.value, dead_letter_headers(BAD_SEQUENCE, d.error, d.provenance), d.provenance.timestamp_ms)
            for d in damaged
        ]
        await self._transact([], letters)
        if letters:
            self._metrics.dead_letters.labels(BAD_SEQUENCE).inc(len(letters))


async def _called(table: PartitionTable, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Where it does not keep the event loop, and with it the heartbeats, waiting for a disk."""
    if table.blocks:
        return await asyncio.to_thread(method, *args, **kwargs)
    return method(*args, **kwargs)


class _Decoded(NamedTuple):
    """`taken` are the first messages, `batches` what can be read of them, the rest are `letters`; `users` are distinct."""

    taken: list[Pending]
    batches: list[Batch]
    letters: list[Letter]
    users: int


def _decoded(waiting: list[Pending], most_users: int) -> _Decoded:
    """The first messages, one at least, that name at most so many users."""
    batches: list[Batch] = []
    letters: list[Letter] = []
    users: set[bytes] = set()
    for number, pending in enumerate(waiting):
        try:
            if pending.value is None:
                raise BatchError("a message without a value is no batch")
            batch = decode_batch(pending.value)
        except BatchError as error:
            headers = dead_letter_headers(BAD_BATCH, str(error), pending.provenance, pending.headers)
            letters.append(Letter(pending.key, pending.value, headers, pending.provenance.timestamp_ms))
            continue
        before = len(users)
        users.update(batch.users)
        if batches and len(users) > most_users:
            return _Decoded(waiting[:number], batches, letters, before)
        batches.append(batch)
    return _Decoded(waiting, batches, letters, len(users))
