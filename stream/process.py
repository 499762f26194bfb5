"""How a stage's process ends: SIGTERM and SIGINT finish what is under way, an error leaves at once."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from schemas.errors import SlipstreamError


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
