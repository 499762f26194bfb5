"""The ingest stage as a process. What it does, step by step: stream/ingest_worker.py."""

from __future__ import annotations

import logging
import threading
from functools import partial

from prometheus_client import CollectorRegistry

from edge.broker_watch import BrokerWatch
from edge.health import Health, served
from edge.process import end_unfinished, stop_on_signals
from edge.tracing import tracing
from stream.config import IngestConfig
from stream.ingest_worker import IngestWorker
from stream.metrics import IngestMetrics
from stream.topics import arrival_is_brokers_time, check_topics

__all__ = ["IngestConfig", "run_ingest"]

logger = logging.getLogger(__name__)


def run_ingest(
    config: IngestConfig, registry: CollectorRegistry | None = None, stop: threading.Event | None = None
) -> None:
    """Run a worker until SIGTERM, SIGINT or `stop`; then deliver and commit what is under way and leave the group.

    It also ends, a little later, when Kafka does not answer: what could not be committed comes again. Told by a signal, it then
    ends the process itself, with exit code 0.

    Raises:
        TopicError: the topics are not there or do not fit together, or one was deleted meanwhile.
        ConfigError: Kafka refuses this user.
        UnavailableError: Kafka cannot be reached, or has been away for `give_up_after_s`.
        SlipstreamError: Kafka refuses something.
    """
    counts = check_topics(config.kafka, config.names)
    if not arrival_is_brokers_time(config.kafka, config.names.engagements):
        logger.warning(
            "topic %s has producers' timestamps: arrival times, and with them freshness, are as good as producers' clocks; "
            "set message.timestamp.type=LogAppendTime",
            config.names.engagements,
        )
    registry = registry or CollectorRegistry()
    stop = stop or threading.Event()
    metrics = IngestMetrics(registry)
    health = Health({"kafka": "not asked yet"})

    # The dead letters' topic is missed when there is something to bury.
    topics = [config.names.engagements, config.names.batches]
    watch = BrokerWatch(config.kafka, topics, config.give_up_after_s, partial(health.set, "kafka"))

    def on_pass() -> None:
        health.beat()
        watch.check()

    over_http = served(registry, health, config.metrics_port, config.metrics_host)
    spans = tracing(config.traces, "ingest", config.names.prefix)
    with stop_on_signals(stop) as signalled, metrics.stage.told(health), over_http, watch, spans as traces:
        left = IngestWorker(config, metrics, counts[config.names.batches], stop, traces).run(on_pass)
    if not left and signalled.is_set():
        end_unfinished()
