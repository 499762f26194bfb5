"""Over HTTP: readiness fails while Kafka or Redis is away, and comes back by itself; metrics are what the dashboard asks for.

Run: pytest tests/integration/test_health.py
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from schemas.names import Names
from slipstream.stack import running, start_part, stop_part
from slipstream.stack.process import free_port
from tests.deploy.observed import exported, queries, selectors
from tests.encoder.models import small_model
from tests.integration.encoding import Changelog, encoder
from tests.integration.streaming import Deployment, random_events, wait_until

#: All are ready; there is no backfill, and no table on a disk.
ONLY_SOMETIMES = (
    "slipstream_unready",
    "slipstream_encode_backfill_remaining",
    "slipstream_sequence_disk_free_bytes",
    "slipstream_sequence_disk_size_bytes",
)
pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def ask(port: int, path: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError as error:  # not up yet
        return 0, {"reasons": {"http": str(error)}}


def reasons(port: int) -> dict[str, str]:
    return dict(ask(port, "/ready")[1]["reasons"])


def scraped(port: int) -> list[Sample]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        return [s for family in text_string_to_metric_families(response.read().decode()) for s in family.samples]


def check_metrics(ports: Iterable[int]) -> None:
    """What the stages tell is what the page says, and no query of dashboard and rules asks in vain."""
    known = exported()

    def told() -> list[Sample]:
        return [sample for port in ports for sample in scraped(port)]

    def worked_off() -> bool:
        values = {(s.name, s.labels["stage"]): s.value for s in told() if "stage" in s.labels}
        lags = [sum(s.value for s in scraped(port) if s.name == "slipstream_lag_messages") for port in ports]
        return values["slipstream_freshness_seconds_count", "encode"] > 0 and lags == [0, 0, 0]

    wait_until("states are written and no lag is left", worked_off)
    samples = told()
    for sample in samples:
        assert sample.labels.keys() == known[sample.name].labels, sample
    for where, expr in queries():
        for selector in selectors(expr):
            of_rankers = selector.name.startswith(("slipstream_ranker_", "ranking_"))
            if selector.name in known and selector.name not in ONLY_SOMETIMES and not of_rankers:
                found = [s for s in samples if s.name == selector.name and selector.matches(s.labels)]
                assert found, f"{where}: {selector}"


def test_readiness_follows_kafka_and_redis(prefix: str, tmp_path: Path) -> None:
    stages = ("ingest", "sequence", "encode")
    ports: dict[str, int] = {}
    for stage in stages:
        ports[stage] = free_port(ports.values())
    model = small_model(tmp_path / "bundle")
    with ExitStack() as stack:
        own = stack.enter_context(running(tmp_path / "stack"))
        deployment = stack.enter_context(Deployment(own.kafka_bootstrap, prefix, tmp_path))
        workers = [deployment.start(stage, metrics_port=ports[stage]) for stage in stages[:2]]
        changelog = Changelog.__new__(Changelog)
        changelog.bootstrap, changelog.names = own.kafka_bootstrap, Names(prefix)
        log = tmp_path / "encode.log"
        states = stack.enter_context(encoder(model, changelog, own.redis_url, log, metrics_port=ports["encode"]))

        def all_ready() -> bool:
            return all(ask(port, "/ready") == (200, {"ready": True, "reasons": {}}) for port in ports.values())

        wait_until("all are ready", all_ready)
        deployment.send(random_events(500, 20))
        deployment.drain()
        check_metrics(ports.values())

        stop_part(own.data_dir, "kafka", kill=True)
        for port in ports.values():
            wait_until("it says that Kafka is away", lambda: "does not answer" in reasons(port).get("kafka", ""))  # noqa: B023
            assert ask(port, "/ready")[0] == 503
            assert "kafka" in [s.labels["reason"] for s in scraped(port) if s.name == "slipstream_unready"]
            assert ask(port, "/live")[0] == 200, "it waits, and must not be started again for that"
        start_part(own.data_dir, "kafka")
        wait_until("all are ready again", all_ready)

        stop_part(own.data_dir, "redis")
        wait_until("it says that Redis is away", lambda: "is it running?" in reasons(ports["encode"]).get("redis", ""))
        assert ask(ports["encode"], "/ready")[0] == 503
        assert ask(ports["ingest"], "/ready")[0] == ask(ports["sequence"], "/ready")[0] == 200
        start_part(own.data_dir, "redis")
        wait_until("all are ready again", all_ready)

        deployment.send(random_events(500, 20, seed=1))
        deployment.drain()
        assert deployment.mismatches() == []
        assert [worker.stop() for worker in workers] == [0, 0]
        assert states.terminate() == 0


def test_loading_tables_are_not_ready(kafka_bootstrap: str, prefix: str, tmp_path: Path) -> None:
    """A second worker joins and gets partitions: until their tables are whole it is not ready, and says why."""
    port = free_port()
    with Deployment(kafka_bootstrap, prefix, tmp_path) as deployment:
        ingest, first = deployment.start("ingest"), deployment.start("sequence")
        deployment.send(random_events(20_000, 5_000))
        deployment.drain()
        second = deployment.start("sequence", metrics_port=port)
        seen: set[str] = set()

        def ready() -> bool:
            status, said = ask(port, "/ready")
            seen.update(said["reasons"])
            return status == 200

        wait_until("it is ready", ready)
        assert "tables" in seen
        assert [worker.stop() for worker in (second, first, ingest)] == [0, 0, 0]
