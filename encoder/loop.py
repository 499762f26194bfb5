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

Redis away: the batch waits, with back-off, and nothing is committed; after `redis_patience_s` the worker ends with
UnavailableError. Kafka away: librdkafka reconnects by itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic

from edge.health import Health
from encoder.changelog import Folded, fold
from encoder.config import EncodeConfig
from encoder.engine import Done, Engine, unix_ms
from encoder.hot import HotStates
from encoder.metrics import EncodeMetrics
from encoder.refresh_log import RefreshLog
from encoder.source import Source
from encoder.stopwatch import Stopwatch
from schemas.errors import UnavailableError

_log = logging.getLogger(__name__)

#: How long a poll waits for a record: also how soon a signal is noticed.
_POLL_S = 0.1
_REPORT_S = 1.0
_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.1, 5.0


class Worker:
    """The loop. See the module."""

    def __init__(
        self,
        config: EncodeConfig,
        source: Source,
        engine: Engine,
        changelog_id: bytes,
        metrics: EncodeMetrics,
        watch: Stopwatch,
        hot: HotStates,
        health: Health,
        check_broker: Callable[[], None],
    ) -> None:
        self._config = config
        self._source = source
        self._engine = engine
        self._changelog_id = changelog_id
        self._metrics = metrics
        self._watch = watch
        self._hot = hot
        self._health = health
        self._check_broker = check_broker
        self._reported_s = 0.0

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
            first = self._source.wait(_POLL_S)
        if first is not None:
            with self._watch("poll"):
                polled = self._source.take(first, self._config.max_batch_users)  # 1
            with self._watch("fold"):
                folded, errors = fold(polled.records, self._config.names.sequences, self._changelog_id)  # 2
            for error in errors:
                self._metrics.bad_records.inc()
                _log.error("%s; skipped", error)
            if folded:
                done = self._refresh(folded, polled_ms, stop)  # 3
                if done is None:
                    return
                with self._watch("note"):
                    self._note(folded, done, log)  # 4
            self._source.done(polled)
        self._source.commit_if_due()  # 5

    def _refresh(self, folded: list[Folded], polled_ms: int, stop: threading.Event) -> list[Done] | None:
        """None: told to stop while Redis was away; nothing of the batch may be committed."""
        updates = [row.update for row in folded]
        give_up_s, backoff_s = monotonic() + self._config.redis_patience_s, _FIRST_BACKOFF_S
        while True:
            try:
                return self._engine.refresh(updates, polled_ms)
            except UnavailableError as error:
                self._metrics.store_retries.inc()
                self._health.beat()  # it waits, as it should
                if monotonic() > give_up_s:
                    raise
                _log.warning("%s; %d users wait, next try in %.1f s", error, len(updates), backoff_s)
            if stop.wait(backoff_s):
                return None
            backoff_s = min(2 * backoff_s, _LAST_BACKOFF_S)

    def _note(self, folded: list[Folded], done: list[Done], log: RefreshLog) -> None:
        rows = list(zip(folded, done, strict=True))
        log.write(rows)
        self._metrics.batch_users.observe(len(rows))
        for row, result in rows:
            if result.written_ms and row.oldest_arrived_ms > 0:
                self._metrics.freshness_seconds.observe(max(0, result.written_ms - row.oldest_arrived_ms) / 1000)

    def _report(self) -> None:
        now_s = monotonic()
        if now_s - self._reported_s < _REPORT_S:
            return
        self._reported_s = now_s
        metrics = self._metrics
        for part, seconds in self._watch.take().items():
            metrics.part_seconds.labels(part).inc(seconds)
        metrics.lag_records.clear()  # of partitions that are another worker's now
        for partition, lag in self._source.lag_records().items():
            metrics.lag_records.labels(str(partition)).set(lag)
        metrics.hot_states.set(len(self._hot))
        metrics.hot_bytes.set(self._hot.bytes)
