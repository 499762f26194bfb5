"""What a stage is as a process: it ends on signals after what is under way, on an error at once, and shows its metrics."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from prometheus_client import CollectorRegistry, start_http_server

from schemas.errors import ConfigError, SlipstreamError


@contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """Sets `stop` on SIGTERM and SIGINT. Outside the main thread, where Python allows no handlers, the caller sets it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def served(registry: CollectorRegistry, port: int) -> Iterator[None]:
    """Serves the registry on 127.0.0.1 meanwhile; port 0 serves nothing.

    Raises:
        ConfigError: the port is taken.
    """
    if not port:
        yield
        return
    try:
        server, thread = start_http_server(port, "127.0.0.1", registry)
    except OSError as error:
        raise ConfigError(f"metrics port {port} on 127.0.0.1: {error.strerror}; set another `metrics_port`") from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def exit_at_once(error: BaseException, logger: logging.Logger) -> NoReturn:
    """Ends this process with the error's exit code, without commits, acknowledgements or `finally` blocks of anybody.

    For a worker that must not do another thing: it was fenced, or does not know what it has written.
    """
    if isinstance(error, SlipstreamError):
        logger.critical("%s", error)
        code = error.exit_code
    else:
        logger.critical("unexpected error, the worker stops: %r", error, exc_info=error)
        code = SlipstreamError.exit_code
    logging.shutdown()
    os._exit(code)
