"""The encoder worker: the changelog of sequences in, states in Redis out.

Its parts are put together here; encoder/loop.py has the loop.
"""

from __future__ import annotations

import logging
import math
import threading
from functools import partial

from prometheus_client import CollectorRegistry

from edge.broker_watch import BrokerWatch
from edge.health import Health, served
from edge.kafka import topic_id
from edge.process import end_unfinished, stop_on_signals
from edge.tracing import tracing
from encoder.bundle import load_bundle
from encoder.config import EncodeConfig
from encoder.consumers import SourceConfig
from encoder.engine import Engine
from encoder.hot import HotStates
from encoder.loop import Worker
from encoder.metrics import EncodeMetrics
from encoder.models_redis import publish_active
from encoder.redis_loss import LossWatch
from encoder.redis_progress import RedisProgress
from encoder.redis_watch import ANSWER_S, RedisWatch
from encoder.refresh import Refresher, limits_of
from encoder.runtime import Runtime
from encoder.source import Source
from encoder.stopwatch import Stopwatch
from encoder.store_redis import RedisStateStore, connect
from encoder.traces import RefreshTraces

_log = logging.getLogger(__name__)

#: Of a pass: a large model re-encodes a whole batch in it. The group waits as long.
_LIVE_WITHIN_S = 300.0


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
    runtime = Runtime(bundle, config.runtime)
    changelog_id = topic_id(config.kafka, names.sequences)
    client = connect(config.redis_url)
    hot = HotStates(layout, config.hot_cache_bytes, config.recheck_every)
    refresher = Refresher(runtime, bundle.features, layout, watch, config.incremental, limits_of(runtime.provider))
    store = RedisStateStore(client, names, layout, config.state_ttl_s, config.deleted_ttl_s)
    max_age_ms = config.deleted_ttl_s * 1000 // 2
    engine = Engine(refresher, store, hot, metrics, watch, max_age_ms=max_age_ms)
    backfill_engine = Engine(refresher, store, hot, metrics, watch, max_age_ms=max_age_ms, displaces=False)
    if config.publish_active:
        active = publish_active(client, names, bundle.model_id)
        if active != bundle.model_id:
            _log.info("rankers read model %s; this worker keeps the states of %s", active, bundle.model_id)
    metrics.model.labels(bundle.model_id, runtime.provider, runtime.precision).set(1)
    metrics.lower_provider.set(runtime.provider != config.runtime.providers[0])
    for graph, nodes in runtime.placement.items():
        for provider, count in nodes.items():
            metrics.graph_nodes.labels(graph, provider).set(count)
    # Asked in every pass and while leaving the group: a Redis that stands still must not hold those up for long.
    marks_client = connect(config.redis_url, ANSWER_S, retries=0)
    source = Source(
        SourceConfig(
            config.kafka,
            names.sequences,
            names.encoder_group(bundle.model_id),
            session_timeout_s=config.session_timeout_s,
            backfill=config.backfill,
            window=bundle.shape.context,
            traced=config.traces is not None,
        ),
        LossWatch(RedisProgress(marks_client, names, bundle.model_id, changelog_id), metrics),
        on_gone=hot.drop_partitions,
    )
    health = Health({"kafka": "not asked yet"}, _LIVE_WITHIN_S)
    # Kafka may be away for as long as it likes: states grow stale, and say so.
    kafka_watch = BrokerWatch(config.kafka, [names.sequences], math.inf, partial(health.set, "kafka"))
    redis_watch = RedisWatch(config.redis_url, names, partial(health.set, "redis"), config.publish_active)
    _log.info("encoding %s with model %s on %s", names.sequences, bundle.model_id, runtime.provider)
    over_http = served(registry, health, config.metrics_port, config.metrics_host)
    with (
        stop_on_signals(stop) as signalled,
        metrics.stage.told(health),
        over_http,
        kafka_watch,
        redis_watch,
        tracing(config.traces, "encode", names.prefix) as spans,
    ):
        traces = RefreshTraces(spans, names, bundle.model_id) if spans else None
        check_broker = kafka_watch.check
        left = Worker(
            config, source, engine, backfill_engine, changelog_id, metrics, watch, hot, health, check_broker, traces
        ).run(stop)
    if not left and signalled.is_set():
        end_unfinished()
