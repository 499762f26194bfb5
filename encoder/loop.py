"""The encoder worker's loop: what was read of the changelog is worked off, then committed.

One pass of the loop:

    1 poll     what has gathered; a lone record does not wait, under load batches grow
    2 fold     the newest sequence of each user (encoder/changelog.py)
    3 refresh  plan, run, write to the store (encoder/engine.py)
    4 note     metrics and the refresh log
    5 commit   the offsets, at most every half second

A crash between any two steps repeats from the last commit. That is enough: a record whose state is written finds it up to date,
and a worker that comes late, or was taken for dead, finds a newer fence or another revision and changes nothing. So a restart, a
new model, a lost Redis and a rebuild are one thing: read the topic from the committed offset, or from its beginning.

A partition that is far behind is backfilled: in between, when encoder/backfill.py lets it, a run of older records goes the same
way. Its users are kept hot only where there is room, since hot states are for users who are live.

Redis away: the batch waits, with back-off, and nothing is committed; after `redis_patience_s` the worker ends with
UnavailableError. Kafka away: librdkafka reconnects by itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic

from edge.allocator import return_freed_memory
from edge.health import Health
from encoder.backfill import Pacer
from encoder.changelog import ChangelogRecord, Folded, fold
from encoder.config import EncodeConfig
from encoder.engine import Done, Engine, Update, unix_ms
from encoder.hot import HotStates
from encoder.metrics import EncodeMetrics
from encoder.refresh_log import RefreshLog
from encoder.source import Source
from encoder.stopwatch import Stopwatch
from encoder.traces import RefreshTraces
from schemas.errors import UnavailableError

_log = logging.getLogger(__name__)

#: How long a poll waits for a record: also how soon a signal is noticed. While backfill waits for the broker: for what it sends.
_POLL_S, _FETCH_S = 0.1, 0.005
_REPORT_S = 1.0
_SAY_EVERY_S = 30.0
#: What partitions that went and backfills that are over leave between the hot states: 5 and 10 MB each, in a soak. Takes a
#: millisecond.
_RETURN_MEMORY_EVERY_S = 60.0
_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.1, 5.0


class Worker:
    """The loop. See the module."""

    def __init__(
        self,
        config: EncodeConfig,
        source: Source,
        engine: Engine,
        backfill_engine: Engine,
        changelog_id: bytes,
        metrics: EncodeMetrics,
        watch: Stopwatch,
        hot: HotStates,
        health: Health,
        check_broker: Callable[[], None],
        traces: RefreshTraces | None = None,
    ) -> None:
        """
        Args:
            backfill_engine: of the same model, store and hot states; displaces none of these.
        """
        self._config = config
        self._source = source
        self._engine = engine
        self._backfill_engine = backfill_engine
        self._changelog_id = changelog_id
        self._metrics = metrics
        self._watch = watch
        self._hot = hot
        self._health = health
        self._check_broker = check_broker
        self._traces = traces
        self._pacer = Pacer(config.backfill)
        self._fetching = False  # backfill has worked off all that the broker sent
        self._reported_s = self._said_s = 0.0
        self._returned_s = monotonic()

    def run(self, stop: threading.Event) -> bool:
        """Passes until `stop` is set; leaves the group, whatever happens. False: it could not, since Kafka does not answer."""
        try:
            with RefreshLog(self._config.refresh_log) as log:
                while not stop.is_set():
                    self._health.beat()
                    self._check_broker()
                    self._pass(log, stop)
                    self._report()
        finally:
            left = self._source.close()
        return left

    def _pass(self, log: RefreshLog, stop: threading.Event) -> None:
        # Records may have waited in librdkafka while this process was paused: their time counts from before the poll.
        polled_ms = unix_ms()
        with self._watch("wait"):
            first = self._source.wait(self._patience_s())
        if first is not None:
            with self._watch("poll"):
                polled = self._source.take(first, self._config.max_batch_users)  # 1
            if polled.records:
                self._pacer.live_came()
            traced = self._traces.begin(polled.records) if self._traces else None
            write_s = self._watch.seconds("write")
            worked = self._work(self._engine, polled.records, polled_ms, stop)  # 2, 3
            if worked is None:
                return
            if traced:
                traced.end(worked, self._watch.seconds("write") - write_s)
            with self._watch("note"):
                self._note(worked, log)  # 4
            self._source.done(polled, [row.update for row, _ in worked])
            self._metrics.stage.messages.inc(len(polled.records))
        if self._source.backfill and not self._pacer.pause_s():
            self._backfill(log, stop)
        self._source.commit_if_due()  # 5

    def _patience_s(self) -> float:
        """How long to wait for live records."""
        if not self._source.backfill:
            return _POLL_S
        return min(_POLL_S, max(self._pacer.pause_s(), _FETCH_S if self._fetching else 0.0))

    def _backfill(self, log: RefreshLog, stop: threading.Event) -> None:
        """One run."""
        began_s, graph_s = monotonic(), self._watch.seconds("run")
        with self._watch("poll"):
            run = self._source.backfill.take(self._pacer.begin(), self._config.max_batch_users)
        self._fetching = not run.records
        worked = self._work(self._backfill_engine, run.records, run.read_ms, stop)
        if worked is None:
            return
        log.write(worked)
        self._source.backfilled(run)
        self._metrics.stage.messages.inc(len(run.records))
        self._metrics.backfill_records.inc(len(run.records))
        self._metrics.backfill_users.inc(sum(done.written_ms > 0 for _, done in worked))
        if run.records:
            encoded = sum(done.events for _, done in worked)
            self._pacer.ran(monotonic() - began_s, self._watch.seconds("run") - graph_s, run.events, encoded)
        if not self._source.backfill:
            _log.info("backfill of this worker's partitions is done")

    def _work(
        self, engine: Engine, records: list[ChangelogRecord], polled_ms: int, stop: threading.Event
    ) -> list[tuple[Folded, Done]] | None:
        """Bring the records' users to their states. None: told to stop while Redis was away; nothing of it may be committed."""
        with self._watch("fold"):
            folded, errors = fold(records, self._config.names.sequences, self._changelog_id)
        for error in errors:
            self._metrics.bad_records.inc()
            _log.error("%s; skipped", error)
        if not folded:
            return []
        done = self._refresh(engine, [row.update for row in folded], polled_ms, stop)
        return None if done is None else list(zip(folded, done, strict=True))

    def _refresh(
        self, engine: Engine, updates: list[Update], polled_ms: int, stop: threading.Event
    ) -> list[Done] | None:
        give_up_s, backoff_s = monotonic() + self._config.redis_patience_s, _FIRST_BACKOFF_S
        while True:
            try:
                return engine.refresh(updates, polled_ms)
            except UnavailableError as error:
                self._metrics.store_retries.inc()
                self._health.beat()  # it waits, as it should
                if monotonic() > give_up_s:
                    raise
                _log.warning("%s; %d users wait, next try in %.1f s", error, len(updates), backoff_s)
            if stop.wait(backoff_s):
                return None
            backoff_s = min(2 * backoff_s, _LAST_BACKOFF_S)

    def _note(self, rows: list[tuple[Folded, Done]], log: RefreshLog) -> None:
        log.write(rows)
        if rows:
            self._metrics.batch_users.observe(len(rows))
        for row, result in rows:
            if result.written_ms and row.oldest_arrived_ms > 0:
                self._metrics.stage.freshness.observe(max(0, result.written_ms - row.oldest_arrived_ms) / 1000)

    def _report(self) -> None:
        now_s = monotonic()
        if now_s - self._reported_s < _REPORT_S:
            return
        self._reported_s = now_s
        metrics = self._metrics
        for part, seconds in self._watch.take().items():
            metrics.part_seconds.labels(part).inc(seconds)
        backfill = self._source.backfill
        metrics.stage.lag = self._source.lag_records()
        metrics.backfill_remaining.clear()  # of partitions that are another worker's now
        for partition, left in backfill.left().items():
            metrics.backfill_remaining.labels(str(partition)).set(left)
        metrics.hot_states.set(len(self._hot))
        metrics.hot_bytes.set(self._hot.bytes)
        if backfill and now_s - self._said_s > _SAY_EVERY_S:
            self._said_s = now_s
            _log.info("backfill: %s", backfill)
        if now_s - self._returned_s > _RETURN_MEMORY_EVERY_S:
            self._returned_s = now_s
            return_freed_memory()
