"""What a stage says over HTTP. Run: pytest tests/edge/test_health.py"""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from edge.health import Health, served
from schemas.errors import ConfigError
from slipstream.stack.process import free_port


def ask(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def answer(port: int, path: str) -> tuple[int, dict[str, Any]]:
    status, body = ask(port, path)
    return status, json.loads(body)


def test_ready_with_reasons() -> None:
    health, port = Health({"kafka": "not asked yet"}), free_port()
    with served(CollectorRegistry(), health, port):
        assert answer(port, "/ready") == (503, {"ready": False, "reasons": {"kafka": "not asked yet"}})
        health.set("tables", "partitions [1] are loading")
        health.set("kafka", None)
        assert answer(port, "/ready") == (503, {"ready": False, "reasons": {"tables": "partitions [1] are loading"}})
        health.set("tables", None)
        health.set("tables", None)
        assert answer(port, "/ready") == (200, {"ready": True, "reasons": {}})
        assert health.ready


def test_live_while_the_loop_turns() -> None:
    health, port = Health(live_within_s=0.0), free_port()
    with served(CollectorRegistry(), health, port):
        time.sleep(0.01)
        status, said = answer(port, "/live")
        assert (status, said["live"]) == (503, False)
        assert said["seconds_since_last_pass"] > 0
    health = Health(live_within_s=3600)
    with served(CollectorRegistry(), health, port):
        assert answer(port, "/live")[0] == 200
        before = health.silent_s()
        health.beat()
        assert health.silent_s() < before


def test_metrics_and_unknown_paths() -> None:
    registry, port = CollectorRegistry(), free_port()
    Counter("things", "Things", registry=registry).inc(3)
    with served(registry, Health(), port):
        status, body = ask(port, "/metrics")
        assert status == 200
        assert b"things_total 3.0" in body
        status, body = ask(port, "/other")
        assert status == 404
        assert b"/metrics, /live, /ready" in body


def test_port_0_serves_nothing_and_a_taken_one_is_named() -> None:
    with served(CollectorRegistry(), Health(), 0):
        pass
    port = free_port()
    with (
        served(CollectorRegistry(), Health(), port),
        pytest.raises(ConfigError, match=f"metrics port {port} on 127.0.0.1: .*metrics_port"),
        served(CollectorRegistry(), Health(), port),
    ):
        pass
    with pytest.raises(ConfigError, match="metrics_host"), served(CollectorRegistry(), Health(), port, "192.0.2.1"):
        pass


def test_all_addresses() -> None:
    port = free_port()
    with served(CollectorRegistry(), Health(), port, "0.0.0.0"):
        assert ask(port, "/ready")[0] == 200


def test_a_silent_client_holds_up_nobody() -> None:
    port = free_port()
    with served(CollectorRegistry(), Health(), port), socket.create_connection(("127.0.0.1", port)):
        assert ask(port, "/ready")[0] == 200
