"""What a stage is as a process: it ends on signals after what is under way, in bounded time, and on an error at once."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from schemas.errors import SlipstreamError

#: What a stage that was told to stop gives Kafka for each of its farewells: last deliveries, the last commit, leaving the group.
#: A client can wait for a broker that is gone or frozen for minutes, and whoever sent the signal kills after 30 s or so.
FAREWELL_S = 4.0


@contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[threading.Event]:
    """Sets `stop` on SIGTERM and SIGINT, and the event that it gives: it was a signal, so the process is to end.

    Outside the main thread, where Python allows no handlers, the caller sets `stop`.
    """
    signalled = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield signalled
        return

    def on_signal(*_: object) -> None:
        signalled.set()
        stop.set()

    former = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield signalled
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def process_id() -> str:
    """This process among those of all machines: `host-pid`."""
    return f"{socket.gethostname()}-{os.getpid()}"


def in_time(limit_s: float, work: Callable[[], object]) -> bool:
    """Whether `work` came to its end in time. If not, its thread goes on by itself, for as long as the process lives.

    Raises:
        Whatever `work` raises in time.
    """
    ended = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)
        finally:
            ended.set()

    threading.Thread(target=run, name="in-time", daemon=True).start()
    if not ended.wait(limit_s):
        return False
    if failures:
        raise failures[0]
    return True


def end_unfinished(code: int = 0) -> NoReturn:
    """Ends this process while a thread of it is stuck in a client of Kafka or Redis: to take down interpreter and libraries
    around it might crash. Only for a process that has done its work, or that a signal told to end."""
    logging.shutdown()
    os._exit(code)


def exit_at_once(error: BaseException, logger: logging.Logger) -> NoReturn:
    """Ends this process with the error's exit code, without commits, acknowledgements or `finally` blocks of anybody.

    For a worker that must not do another thing: it was fenced, or does not know what it has written.
    """
    if isinstance(error, SlipstreamError):
        logger.critical("%s", error)
        code = error.exit_code
    else:
        logger.critical("unexpected error, the worker stops", exc_info=error)
        code = SlipstreamError.exit_code
    logging.shutdown()
    os._exit(code)
