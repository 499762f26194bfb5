"""What a stage says about itself over HTTP: metrics for Prometheus, and whether it lives and is ready for an orchestrator.

    /metrics   Prometheus' text format
    /live      200 while the main loop turns, else 503: start the process again
    /ready     200 while it can do its work, else 503 with the reasons: `{"ready": false, "reasons": {"kafka": "..."}}`

A worker that is not ready waits and loses nothing: a reason to send no new version after it, not to kill it.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from schemas.errors import ConfigError

#: Far above what a pass takes while Kafka or Redis is slow: those waits count as passes too.
LIVE_WITHIN_S = 60.0


class Health:
    """Filled in by a stage, from any thread. Not ready until every reason that was given is taken back.

    Args:
        reasons: why it is not ready at the start, by what it is about, such as `{"kafka": "not asked yet"}`.
        live_within_s: without a pass of the main loop for so long it counts as stuck.
    """

    def __init__(self, reasons: dict[str, str] | None = None, live_within_s: float = LIVE_WITHIN_S) -> None:
        self._reasons = dict(reasons or {})
        self._lock = threading.Lock()
        self._live_within_s = live_within_s
        self._beat_s = time.monotonic()

    def beat(self) -> None:
        """The main loop has made a pass."""
        self._beat_s = time.monotonic()

    def set(self, what: str, reason: str | None) -> None:
        """Why it is not ready as far as `what` goes; None: it is."""
        with self._lock:
            if reason is None:
                self._reasons.pop(what, None)
            else:
                self._reasons[what] = reason

    def reasons(self) -> dict[str, str]:
        with self._lock:
            return dict(self._reasons)

    @property
    def ready(self) -> bool:
        return not self.reasons()

    def silent_s(self) -> float:
        """Since the last pass."""
        return time.monotonic() - self._beat_s

    def answer(self, path: str) -> tuple[bool, dict[str, Any]] | None:
        """Whether all is well, and the JSON that says so; None for a path that is not there."""
        if path == "/live":
            silent_s = self.silent_s()
            live = silent_s <= self._live_within_s
            return live, {"live": live, "seconds_since_last_pass": round(silent_s, 3)}
        if path == "/ready":
            reasons = self.reasons()
            return not reasons, {"ready": not reasons, "reasons": reasons}
        return None


@contextmanager
def served(registry: CollectorRegistry, health: Health, port: int, host: str = "127.0.0.1") -> Iterator[None]:
    """Serves all three meanwhile; port 0 serves nothing. In a container the host is 0.0.0.0 or ::.

    Raises:
        ConfigError: the port is taken, or the host is not one of this machine.
    """
    if not port:
        yield
        return
    try:
        server = make_server(host, port, _app(registry, health), _server_for(host), _QuietHandler)
    except OSError as error:
        raise ConfigError(
            f"metrics port {port} on {host}: {error.strerror}; set another `metrics_port` or `metrics_host`"
        ) from None
    thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


StartResponse = Callable[[str, list[tuple[str, str]]], Any]


def _app(registry: CollectorRegistry, health: Health) -> Callable[[dict[str, Any], StartResponse], Iterable[bytes]]:
    metrics = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            shown: Iterable[bytes] = metrics(environ, start_response)
            return shown
        answer = health.answer(path)
        if answer is None:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/metrics, /live, /ready\n"]
        well, body = answer
        status = "200 OK" if well else "503 Service Unavailable"
        start_response(status, [("Content-Type", "application/json"), ("Cache-Control", "no-store")])
        return [json.dumps(body).encode() + b"\n"]

    return app


class _Server(ThreadingMixIn, WSGIServer):
    """A slow client holds up nobody."""

    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


def _server_for(host: str) -> type[_Server]:
    return _Server6 if ":" in host else _Server


class _QuietHandler(WSGIRequestHandler):
    timeout = 10.0  # of a client that says nothing, seconds

    def log_message(self, *_: Any) -> None: ...
