"""The refresh of many users, from their sequences to their states in the store: the encoder without Kafka.

    1. Take each user's state from the hot states, else from the store.
    2. Drop updates that the state is ahead of.
    3. Plan and run (encoder/refresh.py).
    4. Write (encoder/store.py). Who meets a conflict reads the store and begins again at 2.

A hit encodes nothing, but if its record is newer than the state's fence, header and embedding are written again: the state says
by its `arrived_ms` how fresh it is, and only a fence that has moved on keeps out a slower writer with a record in between.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import time_ns
from typing import NamedTuple

from encoder.hot import HotStates
from encoder.metrics import EncodeMetrics
from encoder.past import Resident
from encoder.plan import PlanKind
from encoder.refresh import Refreshed, Refresher, Want
from encoder.stopwatch import Stopwatch
from encoder.store import Base, Deleted, Invalid, Outcome, StateStore, Write, fresh_revision, is_newer
from schemas.errors import FencedError
from schemas.sequence import Records
from schemas.state import FIXED_BYTES, Fence, Header, Kind, State, StateLayout

_log = logging.getLogger(__name__)

#: Two workers that refresh one user meet at most a few times: each round one of them gets its write through.
MAX_ROUNDS = 16


class Update(NamedTuple):
    """One changelog record.

    Attributes:
        records: `(m,)` of RECORD, the user's sequence; empty: delete the state.
        fence: where the record stands in the changelog.
        arrived_ms: every event that reached the broker until then is in the sequence.
    """

    user: bytes
    records: Records
    fence: Fence
    arrived_ms: int


class Done(NamedTuple):
    """What became of an update.

    Attributes:
        kind: what it took; None: a newer state was there.
        events: how many events went through a graph.
        written_ms: since when the state is readable, Unix ms; 0: there was nothing to write.
    """

    kind: PlanKind | None
    events: int
    written_ms: int


def unix_ms() -> int:
    return time_ns() // 1_000_000


@dataclass(slots=True)
class _Task:
    """An update on its way."""

    update: Update
    base: Resident | Deleted | Invalid | None
    is_hot: bool  # the base was not read just now: the store may hold another one
    done: Done | None = None


class Engine:
    """Refreshes users of one model. Not for several threads at once."""

    def __init__(
        self,
        refresher: Refresher,
        store: StateStore,
        hot: HotStates,
        metrics: EncodeMetrics | None = None,
        watch: Stopwatch | None = None,
        clock_ms: Callable[[], int] = unix_ms,
        max_age_ms: int = 0,
        displaces: bool = True,
    ) -> None:
        """
        Args:
            displaces: users refreshed here push others out of the hot states; False: they are kept only where there is room.
            max_age_ms: updates in work for longer are not written any more (0: for ever). Shorter than the marker of a delete
                lasts, so that a worker that was paused for so long cannot bring a deleted user back.
        """
        self.layout = store.layout
        self._refresher = refresher
        self._store = store
        self._hot = hot
        self._metrics = metrics or EncodeMetrics()
        self._watch = watch or Stopwatch()
        self._clock_ms = clock_ms
        self._max_age_ms = max_age_ms
        self._displaces = displaces
        # Writes whose answer got lost, by revision: a later reading shows whether they were done.
        self._unanswered: dict[bytes, Refreshed] = {}

    def refresh(self, updates: Sequence[Update], polled_ms: int | None = None) -> list[Done]:
        """Bring each user's state to its sequence. At most one update per user.

        Args:
            polled_ms: when the updates were read; None: now.

        Raises:
            UnavailableError: the store cannot be reached. Call again with the same updates; those done before are recognised.
            FencedError: this worker was paused for too long, or meets another writer without end: it must begin anew.
        """
        polled_ms = self._clock_ms() if polled_ms is None else polled_ms
        tasks = [_Task(update, self._hot.get(update.user), True) for update in updates]
        pending, unread = tasks, [task for task in tasks if task.base is None]
        for _ in range(MAX_ROUNDS):
            self._load(unread)
            pending = [task for task in pending if not self._is_settled(task)]
            pending = unread = self._write(pending, polled_ms) if pending else []
            if not pending:
                self._unanswered.clear()
                done = [task.done for task in tasks if task.done is not None]
                self._count(done)
                return done
        raise FencedError(
            f"{len(pending)} users are written by another worker again and again: is one running outside of the consumer group "
            "with the same model? Stop it, and start this one again"
        )

    def _load(self, tasks: list[_Task]) -> None:
        if not tasks:
            return
        with self._watch("load"):
            loaded = self._store.load([task.update.user for task in tasks])
        for task, base in zip(tasks, loaded, strict=True):
            task.base, task.is_hot = Resident.of(base, self.layout) if isinstance(base, State) else base, False
            if isinstance(base, Invalid):
                self._metrics.damaged_states.inc()
                fence = task.update.fence
                _log.warning(
                    "changelog partition %d, offset %d: %s; it is made anew",
                    fence.partition,
                    fence.offset,
                    base.reason,
                    extra={"partition": fence.partition, "offset": fence.offset},
                )

    def _is_settled(self, task: _Task) -> bool:
        """Whether what was read says that nothing is left to do."""
        if not isinstance(task.base, Resident | Deleted):
            return False
        header = task.base.header
        ours = self._unanswered.get(header.revision)
        if ours is not None:
            self._finish(task, header, ours)
        elif is_newer(header.fence, task.update.fence):
            self._supersede(task)
        return task.done is not None

    def _write(self, tasks: list[_Task], polled_ms: int) -> list[_Task]:
        """Plan, run and write. Returns those that must be read again."""
        refreshed = self._refresher.refresh(
            [Want(t.update.user, t.update.records, t.base if isinstance(t.base, Resident) else None) for t in tasks]
        )
        now_ms = self._clock_ms()
        if self._max_age_ms and now_ms - polled_ms > self._max_age_ms:
            raise FencedError(
                f"this worker held a batch for {(now_ms - polled_ms) / 1000:.0f} s: it was paused, and what it would write may "
                "be outdated beyond what the store can tell; start it again"
            )
        changing: list[tuple[_Task, Refreshed, Write]] = []
        for task, row in zip(tasks, refreshed, strict=True):
            if _is_current(task, row.plan.kind):
                task.done = Done(PlanKind.HIT, 0, 0)
            else:
                write = to_write(task.update, task.base, row, self.layout, now_ms)
                self._unanswered[write.header.revision] = row
                changing.append((task, row, write))
        if not changing:
            return []
        with self._watch("write"):
            outcomes = self._store.apply([write for _, _, write in changing])
        unread = []
        for (task, row, write), outcome in zip(changing, outcomes, strict=True):
            if outcome is Outcome.OK:
                self._finish(task, write.header, row)
                continue
            self._hot.drop(task.update.user)
            if outcome is Outcome.SUPERSEDED and not task.is_hot:
                self._supersede(task)
                continue
            # A hot base says nothing about the store, so even "superseded" may be a damaged fence: read what is there.
            self._metrics.conflicts.inc()
            unread.append(task)
        return unread

    def _finish(self, task: _Task, header: Header, row: Refreshed) -> None:
        """The store holds our write."""
        plan = row.plan
        task.done = Done(plan.kind, len(row.slots), self._clock_ms())
        if plan.kind is PlanKind.DELETE:
            self._hot.drop(task.update.user)
        elif self._hot.keeps_any if self._displaces else self._hot.has_room(task.update.user, header.capacity):
            state = task.base
            if isinstance(state, Resident):
                state.become(header, plan.kept, row.slots)
            else:
                state = Resident(header, row.slots, self.layout)
            self._hot.put(task.update.user, state)

    def _supersede(self, task: _Task) -> None:
        task.done = Done(None, 0, 0)

    def _count(self, done: list[Done]) -> None:
        metrics = self._metrics
        written = Counter(row.kind for row in done if row.written_ms)
        for kind, users in written.items():
            metrics.refreshes.labels(kind).inc(users)
        events = sum(row.events for row in done)
        metrics.encoded_events.inc(events)
        metrics.superseded.inc(sum(row.kind is None for row in done))
        metrics.state_bytes_written.inc(
            events * self.layout.slot_bytes
            + (written.total() - written[PlanKind.DELETE]) * self.layout.header_bytes
            + written[PlanKind.DELETE] * FIXED_BYTES
        )


def to_write(update: Update, base: Base, row: Refreshed, layout: StateLayout, now_ms: int) -> Write:
    """What brings the stored value from `base` to `row`, which was made of it."""
    plan = row.plan
    length = len(plan.wanted)
    capacity = layout.capacity_for(length) if length else 0
    if plan.kept and isinstance(base, Resident):
        capacity = max(capacity, base.header.capacity)  # room that is there is used
    header = Header(
        kind=Kind.STATE if length else Kind.DELETED,
        model_id=layout.model_id,
        revision=fresh_revision(),
        fence=update.fence,
        length=length,
        capacity=capacity,
        newest_event_ms=int(plan.wanted["timestamp_ms"][-1]) if length else 0,
        arrived_ms=update.arrived_ms,
        encoded_ms=now_ms,
        slots_crc=row.slots_crc,
        embedding=row.embedding,
    )
    return Write(update.user, base, header, plan.kept, row.slots)


def _is_current(task: _Task, kind: PlanKind) -> bool:
    """Whether the store holds what this very record asks for: it was delivered again."""
    match task.base:
        case Resident():
            return kind is PlanKind.HIT and task.base.header.fence == task.update.fence
        case Deleted():
            return kind is PlanKind.DELETE and task.base.header.fence == task.update.fence
    return False
