"""The whole path in one process: the same pure stages as the distributed one, without Kafka between them.

    JSON -> ingest (stream.pack) -> packed batch -> sequence (stream.merge) -> changelog record
         -> encode (encoder.engine) -> store

What crosses a topic in the distributed path crosses here as the same bytes, so sequences are byte for byte those of the
distributed path, whatever the grouping. Slots and user embeddings are too, for a user whose events arrived in the same groups:
where a full window is anchored anew depends on how far the sequence had grown when the encoder looked.

Time is the log's: a chunk arrives at the timestamp of the newest event so far.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from encoder.bundle import Bundle
from encoder.changelog import ChangelogRecord, fold
from encoder.engine import Done, Engine, Update
from encoder.hot import HotStates
from encoder.plan import PlanKind
from encoder.refresh import Refresher
from encoder.runtime import Runtime, RuntimeConfig
from encoder.store import StateStore
from schemas.batch import decode_batch
from schemas.event import Parser, ParserConfig, encode_engagement
from schemas.log import EventLog
from schemas.names import Names
from schemas.sequence import DEFAULT_CAPACITY
from stream.merge import combine, merge_many
from stream.pack import Packed, Rejected, pack
from stream.topics import BATCH_MAX_MESSAGE_BYTES

_TOPIC = Names().sequences  # in messages only


@dataclass(frozen=True)
class SimulateConfig:
    """
    Attributes:
        partitions: of the topics that are not there: they number the fences, and change no content.
        capacity: newest events that a sequence keeps.
        parser: what events may say; None = the bundle's vocabulary.
        topic_id: 16 bytes that stand for the changelog's in fences; None = made up at random, so that states of a store that was
            used before are built upon, like those of a topic that was made anew.
        max_batch_users: users that are refreshed at once.
        hot_cache_bytes: states kept in this process besides the store.
    """

    partitions: int = 4
    capacity: int = DEFAULT_CAPACITY
    parser: ParserConfig | None = None
    topic_id: bytes | None = None
    max_batch_users: int = 256
    hot_cache_bytes: int = 64 << 20
    runtime: RuntimeConfig = field(default_factory=lambda: RuntimeConfig(graphs=("encode", "append")))


@dataclass(frozen=True)
class SimulateReport:
    """What became of a log.

    Attributes:
        events: messages fed, bad ones too.
        events_per_s: over all stages together.
        users: users with a sequence; a forgotten one keeps an empty one.
        states: users with a state.
        dead_letters: messages that were no events, `reasons` by why (schemas.errors.EventError.REASONS).
        refreshes: refreshes of states by kind (encoder.plan.PlanKind).
        encoded_events: events that went through a graph; those over `events` were encoded again, by anchoring or late events.
    """

    events: int
    seconds: float
    events_per_s: float
    users: int
    states: int
    dead_letters: int
    reasons: dict[str, int]
    refreshes: dict[str, int]
    encoded_events: int

    def __str__(self) -> str:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.refreshes.items())) or "none"
        lines = [
            f"{self.events:,} events in {self.seconds:.1f} s ({self.events_per_s:,.0f} a second)",
            f"{self.users:,} users, {self.states:,} states; refreshes: {kinds}; {self.encoded_events:,} events encoded",
        ]
        if self.dead_letters:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.reasons.items()))
            lines.append(f"{self.dead_letters:,} dead letters: {reasons}")
        return "\n".join(lines)


class Fed(NamedTuple):
    """What one chunk did.

    Attributes:
        rejected: the dead letters; `at` is their place in the chunk.
        updates, done: the users whose sequence changed, and what became of their states, side by side.
    """

    rejected: list[Rejected]
    updates: list[Update]
    done: list[Done]


class Simulation:
    """The stages, with what they remember.

    Attributes:
        sequences: user -> value, byte for byte what the changelog's newest record of the user holds.
    """

    def __init__(self, bundle: Bundle, store: StateStore, config: SimulateConfig | None = None) -> None:
        """
        Args:
            store: where states go: encoder.store_memory.MemoryStateStore, or a Redis of one's own.

        Raises:
            ProviderError, PrerequisiteError, BundleError: as encoder.runtime.Runtime.
        """
        self._config = config = config or SimulateConfig()
        self._parser = Parser(config.parser or ParserConfig(vocabulary=bundle.manifest.vocabulary))
        self._topic_id = config.topic_id or os.urandom(16)
        self._next_offsets = [0] * config.partitions
        self._now_ms = 0
        refresher = Refresher(Runtime(bundle, config.runtime), bundle.features, bundle.layout)
        hot = HotStates(bundle.layout, config.hot_cache_bytes)
        self._engine = Engine(refresher, store, hot, clock_ms=lambda: self._now_ms)
        self.sequences: dict[bytes, bytes] = {}
        self._with_state: set[bytes] = set()
        self._events = self._encoded = 0
        self._reasons: Counter[str] = Counter()
        self._refreshes: Counter[str] = Counter()
        self._seconds = 0.0

    def feed(self, values: Sequence[bytes | None], arrived_ms: int) -> Fed:
        """Let raw messages arrive together, and follow them to the states.

        Args:
            values: as producers write them to `engagements`; anything at all may be among them.
            arrived_ms: the broker's time, Unix ms.

        Raises:
            UnavailableError: the store cannot be reached.
        """
        started = time.perf_counter()
        self._now_ms = max(self._now_ms, arrived_ms)
        partitions = self._config.partitions
        packed = pack(values, [arrived_ms] * len(values), self._parser, partitions, BATCH_MAX_MESSAGE_BYTES)
        updates = [folded.update for folded in fold(list(self._merge(packed)), _TOPIC, self._topic_id).folded]
        done: list[Done] = []
        for start in range(0, len(updates), self._config.max_batch_users):
            done += self._engine.refresh(updates[start : start + self._config.max_batch_users])
        self._count(len(values), packed, updates, done)
        self._seconds += time.perf_counter() - started
        return Fed(packed.rejected, updates, done)

    def _merge(self, packed: Packed) -> Iterator[ChangelogRecord]:
        """The changelog records that the batches give, partition by partition, as one transaction each."""
        by_partition: dict[int, list[bytes]] = {}
        for batch in packed.batches:
            by_partition.setdefault(batch.partition, []).append(batch.value)
        for partition, values in sorted(by_partition.items()):
            news = combine([decode_batch(value) for value in values])
            old = [self.sequences.get(user) for user in news.users]
            merged = merge_many(old, news, self._config.capacity)
            for user, value, arrived_ms in zip(news.users, merged, news.arrived_ms.tolist(), strict=True):
                if value is None:
                    continue
                self.sequences[user] = value
                yield ChangelogRecord(user, value, partition, self._next_offsets[partition], arrived_ms)
                self._next_offsets[partition] += 1

    def _count(self, events: int, packed: Packed, updates: list[Update], done: list[Done]) -> None:
        self._events += events
        self._reasons.update(rejected.reason for rejected in packed.rejected)
        for update, what in zip(updates, done, strict=True):
            self._encoded += what.events
            self._refreshes[what.kind or "superseded"] += 1
            if what.kind is PlanKind.DELETE:
                self._with_state.discard(update.user)
            elif what.kind is not None:
                self._with_state.add(update.user)

    def report(self) -> SimulateReport:
        """All that was fed so far."""
        return SimulateReport(
            events=self._events,
            seconds=round(self._seconds, 3),
            events_per_s=round(self._events / self._seconds, 1) if self._seconds else 0.0,
            users=len(self.sequences),
            states=len(self._with_state),
            dead_letters=self._reasons.total(),
            reasons=dict(self._reasons),
            refreshes={str(kind): count for kind, count in self._refreshes.items()},
            encoded_events=self._encoded,
        )


def messages(log: EventLog) -> list[bytes]:
    """The events of a log as a producer writes them."""
    records, users = log.records, log.users
    actions, surfaces = log.vocabulary.actions, log.vocabulary.surfaces
    columns = (log.user_index, records["item_id"], records["action"], records["surface"], records["timestamp_ms"])
    return [
        encode_engagement(users[user], item, actions[action], surfaces[surface], timestamp_ms)
        for user, item, action, surface, timestamp_ms in zip(*(column.tolist() for column in columns), strict=True)
    ]


def simulate(
    log: EventLog,
    bundle: Bundle,
    store: StateStore,
    batch_events: int = 1,
    config: SimulateConfig | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> SimulateReport:
    """Run a log through all stages.

    Args:
        batch_events: events that arrive together; each user among them is refreshed once. 1 is the freshest and the slowest.
        on_progress: called with the number of events done, after each chunk; `store` then holds what a ranker would read.

    Raises:
        UnavailableError: the store cannot be reached.
    """
    simulation = Simulation(bundle, store, config)
    now_ms = 0
    for start in range(0, len(log), batch_events):
        chunk = log[start : start + batch_events]
        now_ms = max(now_ms, int(chunk.records["timestamp_ms"].max()))
        simulation.feed(messages(chunk), now_ms)
        if on_progress is not None:
            on_progress(start + len(chunk))
    return simulation.report()
