"""What every stage tells Prometheus about itself. Run: pytest tests/edge/test_metrics.py"""

from __future__ import annotations

import logging

from prometheus_client import CollectorRegistry

from edge.health import Health
from edge.metrics import StageMetrics

STAGE = {"stage": "encode"}


def test_readiness_and_its_reasons_are_those_of_the_health_endpoint() -> None:
    registry, health = CollectorRegistry(), Health({"kafka": "not asked yet"})
    told = registry.get_sample_value
    with StageMetrics(registry, "encode").told(health):
        assert told("slipstream_ready", STAGE) == 0
        assert told("slipstream_unready", {**STAGE, "reason": "kafka"}) == 1
        health.set("kafka", None)
        assert told("slipstream_ready", STAGE) == 1
        assert told("slipstream_unready", {**STAGE, "reason": "kafka"}) is None, "no series of what is well"


def test_partitions_of_another_worker_have_no_lag_here() -> None:
    registry = CollectorRegistry()
    stage = StageMetrics(registry, "encode")
    stage.lag = {0: 3, 7: 0}
    stage.lag = {7: 5}
    assert registry.get_sample_value("slipstream_lag_messages", {**STAGE, "partition": "7"}) == 5
    assert registry.get_sample_value("slipstream_lag_messages", {**STAGE, "partition": "0"}) is None


def test_warnings_and_errors_are_counted_while_the_stage_runs() -> None:
    registry = CollectorRegistry()

    def counted() -> dict[str, float | None]:
        labels = ({**STAGE, "level": level} for level in ("warning", "error"))
        return {of["level"]: registry.get_sample_value("slipstream_log_messages_total", of) for of in labels}

    logger = logging.getLogger("a module of ours")
    with StageMetrics(registry, "encode").told(Health()):
        assert counted() == {"warning": 0, "error": 0}, "there before the first of them"
        logger.info("nothing new")
        logger.warning("%s", "user u-17")
        logger.error("worse")
    logger.error("of nobody")
    assert counted() == {"warning": 1, "error": 1}
