"""What every stage tells Prometheus about itself, by its name in the label `stage`. Base units; no label holds a user.

A stage's own are in stream/metrics.py and encoder/metrics.py, a ranker's in ranker/metrics.py; docs/metrics.md lists all.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge.health import Health

#: From a lone event on an idle machine to a backlog. The alerts on freshness ask for the bound of 1 s.
_FRESHNESS_S = (
    0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200,
)  # fmt: skip
_LEVELS = ("warning", "error", "critical")


class StageMetrics(Collector):
    """
    Attributes:
        freshness: seconds from the arrival of an event at Kafka until this stage has done its work on it.
        messages: counts the messages of its source that the stage has worked off.
        lag: messages of its source that the stage has not worked off, by partition. Replaced, never changed: others read it.
    """

    def __init__(self, registry: CollectorRegistry, stage: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter that nobody asks for
        self._stage = stage
        self._health: Health | None = None
        self.lag: Mapping[int, int] = {}
        self.freshness = Histogram(
            "slipstream_freshness_seconds",
            "From the arrival of the oldest new event at Kafka to the end of this stage's work: delivered (ingest, once a pass), "
            "committed (sequence, once a transaction), in a state that rankers can read (encode, once a user)",
            ["stage"],
            buckets=_FRESHNESS_S,
            registry=registry,
        ).labels(stage)
        self.messages = Counter(
            "slipstream_messages",
            "Messages of its source that the stage has worked off, bad ones too: raw ones (ingest), packed batches (sequence), "
            "changelog records (encode)",
            ["stage"],
            registry=registry,
        ).labels(stage)
        self._logged = Counter("slipstream_log_messages", "Logged, by level", ["stage", "level"], registry=registry)
        for level in _LEVELS:
            self._logged.labels(stage, level)
        build = Gauge("slipstream_build_info", "1, with the version that runs", ["stage", "version"], registry=registry)
        build.labels(stage, version("slipstream-embeddings")).set(1)
        ProcessCollector(registry=registry)  # memory, CPU, file descriptors, start time
        registry.register(self)

    @contextmanager
    def told(self, health: Health) -> Iterator[None]:
        """Tell meanwhile what `health` says, and count what is logged."""
        self._health = health
        handler = _Counting(self._stage, self._logged)
        logging.getLogger().addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(handler)

    def collect(self) -> Iterable[Metric]:
        """What is true just now."""
        lag = GaugeMetricFamily(
            "slipstream_lag_messages",
            "Messages of its source that the stage has not worked off, per owned partition",
            labels=["stage", "partition"],
        )
        for partition, messages in self.lag.items():
            lag.add_metric([self._stage, str(partition)], messages)
        yield lag
        ready = GaugeMetricFamily("slipstream_ready", "1 while /ready answers 200", labels=["stage"])
        unready = GaugeMetricFamily("slipstream_unready", "1 for each reason of /ready", labels=["stage", "reason"])
        silent = GaugeMetricFamily(
            "slipstream_last_pass_age_seconds", "Since the main loop made its last pass", labels=["stage"]
        )
        if self._health is not None:
            reasons = self._health.reasons()
            ready.add_metric([self._stage], not reasons)
            for reason in sorted(reasons):
                unready.add_metric([self._stage, reason], 1)
            silent.add_metric([self._stage], self._health.silent_s())
        yield from (ready, unready, silent)


class _Counting(logging.Handler):
    """Counts warnings and what is worse."""

    def __init__(self, stage: str, counter: Counter) -> None:
        super().__init__(logging.WARNING)
        self._by_level = {level.upper(): counter.labels(stage, level) for level in _LEVELS}

    def emit(self, record: logging.LogRecord) -> None:
        if (counter := self._by_level.get(record.levelname)) is not None:
            counter.inc()
