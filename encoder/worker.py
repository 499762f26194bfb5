"""The encoder worker: the changelog of sequences in, states in Redis out.

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
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic

from prometheus_client import CollectorRegistry

from edge.broker_watch import BrokerWatch
from edge.health import Health, served
from edge.kafka import KafkaConfig, topic_id
from edge.process import end_unfinished, stop_on_signals
from encoder.bundle import load_bundle
from encoder.changelog import Folded, fold
from encoder.engine import Done, Engine, unix_ms
from encoder.hot import DEFAULT_RECHECK_EVERY, HotStates
from encoder.metrics import EncodeMetrics
from encoder.models_redis import publish_active
from encoder.redis_watch import RedisWatch
from encoder.refresh import Refresher
from encoder.refresh_log import RefreshLog
from encoder.runtime import Runtime, RuntimeConfig
from encoder.source import Source, SourceConfig
from encoder.stopwatch import Stopwatch
from encoder.store_redis import DEFAULT_DELETED_TTL_S, RedisStateStore, connect
from schemas.errors import ConfigError, UnavailableError
from schemas.names import Names

_log = logging.getLogger(__name__)

#: How long a poll waits for a record: also how soon a signal is noticed.
_POLL_S = 0.1
_REPORT_S = 1.0
_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.1, 5.0
#: Of a pass: a large model re-encodes a whole batch in it. The group waits as long.
_LIVE_WITHIN_S = 300.0
#: Below librdkafka's max.poll.interval of 300 s, after which the group would take the partitions away.
DEFAULT_REDIS_PATIENCE_S = 240.0


@dataclass(frozen=True)
class EncodeConfig:
    """Everything that an encoder worker is told.

    Attributes:
        bundle: the model's directory.
        providers, require_provider, threads: encoder.providers.ProviderConfig.
        state_ttl_s: a state that is not refreshed for so long expires; 0 = never.
        deleted_ttl_s: how long the marker of a deleted user lasts. A worker that was paused for half of that ends.
        hot_cache_bytes: memory for states that were written lately.
        recheck_every: such a state is read again after so many writes.
        max_batch_users: most records, and with that users, of one pass.
        redis_patience_s: how long a batch waits for Redis.
        refresh_log: a file for a JSON line per refreshed user (encoder/refresh_log.py).
        metrics_port, metrics_host: where metrics and health are served over HTTP (edge/health.py); port 0 = nowhere.
        publish_active: name this model as the one that rankers read, if none is named.
        incremental: build on states that are there; False is for comparison only.
    """

    kafka: KafkaConfig
    redis_url: str = field(repr=False)
    bundle: Path
    names: Names = field(default_factory=Names)
    providers: tuple[str, ...] = ("cpu",)
    require_provider: str | None = None
    threads: int = 1
    state_ttl_s: int = 0
    deleted_ttl_s: int = DEFAULT_DELETED_TTL_S
    hot_cache_bytes: int = 256 << 20
    recheck_every: int = DEFAULT_RECHECK_EVERY
    max_batch_users: int = 64
    redis_patience_s: float = DEFAULT_REDIS_PATIENCE_S
    refresh_log: Path | None = None
    metrics_port: int = 0
    metrics_host: str = "127.0.0.1"
    publish_active: bool = True
    incremental: bool = True

    def __post_init__(self) -> None:
        if self.max_batch_users < 1 or self.recheck_every < 1:
            raise ConfigError("max_batch_users and recheck_every must be at least 1")
        if self.deleted_ttl_s < 60 or self.state_ttl_s < 0 or self.hot_cache_bytes < 0:
            raise ConfigError("deleted_ttl_s must be at least 60, state_ttl_s and hot_cache_bytes not negative")


def run_encode(
    config: EncodeConfig, registry: CollectorRegistry | None = None, stop: threading.Event | None = None
) -> None:
    """Run a worker until SIGTERM, SIGINT or `stop`; then finish the batch, commit and leave the group.

    It also ends, a little later, when Kafka does not answer: what could not be committed comes again. Told by a signal, it then
    ends the process itself, with exit code 0.

    Raises:
        BundleError, ProviderError, PrerequisiteError: the model cannot be loaded or run as asked.
        TopicError: the changelog is not there, or was made anew meanwhile.
        UnavailableError: Kafka or Redis cannot be reached at the start, or Redis was away for too long.
        FencedError: this worker was paused for too long, or another one outside of the group writes the same states.
    """
    registry = registry or CollectorRegistry()
    stop = stop or threading.Event()
    metrics, watch = EncodeMetrics(registry), Stopwatch()
    bundle = load_bundle(config.bundle)
    layout, names = bundle.layout, config.names
    runtime = Runtime(
        bundle, RuntimeConfig(config.providers, config.require_provider, config.threads, graphs=("encode", "append"))
    )
    changelog_id = topic_id(config.kafka, names.sequences)
    client = connect(config.redis_url)
    hot = HotStates(layout, config.hot_cache_bytes, config.recheck_every)
    engine = Engine(
        Refresher(runtime, bundle.features, layout, watch, config.incremental),
        RedisStateStore(client, names, layout, config.state_ttl_s, config.deleted_ttl_s),
        hot,
        metrics,
        watch,
        max_age_ms=config.deleted_ttl_s * 1000 // 2,
    )
    if config.publish_active:
        active = publish_active(client, names, bundle.model_id)
        if active != bundle.model_id:
            _log.info("rankers read model %s; this worker keeps the states of %s", active, bundle.model_id)
    metrics.model.info({"model_id": bundle.model_id, "provider": runtime.provider, "precision": runtime.precision})
    for graph, nodes in runtime.placement.items():
        for provider, count in nodes.items():
            metrics.graph_nodes.labels(graph, provider).set(count)
    source = Source(
        SourceConfig(config.kafka, names.sequences, names.encoder_group(bundle.model_id)),
        on_gone=hot.drop_partitions,
    )
    health = Health({"kafka": "not asked yet"}, _LIVE_WITHIN_S)
    # Kafka may be away for as long as it likes: states grow stale, and say so.
    kafka_watch = BrokerWatch(config.kafka, [names.sequences], math.inf, partial(health.set, "kafka"))
    redis_watch = RedisWatch(config.redis_url, names, partial(health.set, "redis"))
    worker = Worker(config, source, engine, changelog_id, metrics, watch, hot, health, kafka_watch.check)
    _log.info("encoding %s with model %s on %s", names.sequences, bundle.model_id, runtime.provider)
    over_http = served(registry, health, config.metrics_port, config.metrics_host)
    with stop_on_signals(stop) as signalled, over_http, kafka_watch, redis_watch:
        left = worker.run(stop)
    if not left and signalled.is_set():
        end_unfinished()


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
