"""How the log lines of a stage look: text for people, or one JSON object a line for programs. No user data in either.

    {"time": "2026-01-31T12:34:56.789Z", "level": "info", "logger": "stream.ingest_worker", "message": "partitions [0]: got [0]",
     "stage": "ingest", "worker": "host-4711", "topic": "slipstream.engagements", "partition": 3, "offset": 42}

Standard logging with a formatter of ours, since the lines of Faust, aiokafka and librdkafka come through standard logging anyway,
and msgspec is here already. A record's `extra` is shown as far as FIELDS name it: what libraries put there is not known.

Our own messages name a topic, a partition and an offset, never a user, an item or a payload. What an unexpected error says is
not known either (`KeyError: b'alice'`), so its class and its stack are shown, and its message with `user_data` alone.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO

import msgspec

from edge.process import process_id
from schemas.errors import SlipstreamError

LogFormat = Literal["text", "json"]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

#: What a log call may name beside its message, by `extra`.
FIELDS = ("topic", "partition", "offset")
#: Libraries whose errors speak of brokers, topics and shapes, not of what is in a message. Redis's may name a key.
_SPEAK_OF_THEMSELVES = ("aiokafka", "confluent_kafka", "cimpl", "onnxruntime")
_HIDDEN = "(its message may hold user data: setting `log_user_data`)"
#: They log each request with its address, which may hold a login.
_TALKATIVE = ("httpx", "httpcore")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LogConfig:
    """
    Attributes:
        stage: the command, in every JSON line.
        user_data: show the messages of unexpected errors.
    """

    stage: str
    level: str = "info"
    format: LogFormat = "text"
    user_data: bool = False


class _Error(msgspec.Struct, gc=False):
    type: str
    message: str
    stack: str


class _Line(msgspec.Struct, omit_defaults=True, gc=False):
    time: str
    level: str
    logger: str
    message: str
    stage: str
    worker: str
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    exception: _Error | None = None


class JsonLines(logging.Formatter):
    """One JSON object a record."""

    def __init__(self, stage: str, worker: str, user_data: bool = False) -> None:
        super().__init__()
        self._stage = stage
        self._worker = worker
        self._user_data = user_data
        self._encoder = msgspec.json.Encoder(enc_hook=str)  # of a library's own `topic`

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = _Line(
            time=at.replace("+00:00", "Z"),
            level=record.levelname.lower(),
            logger=record.name,
            message=_printable(message_of(record, self._user_data)),
            stage=self._stage,
            worker=self._worker,
            **{name: value for name in FIELDS if (value := getattr(record, name, None)) is not None},
        )
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            message = _printable(told(error, self._user_data))
            line.exception = _Error(_kind(error), message, _printable(stack(error, self._user_data)))
        return self._encoder.encode(line).decode()


class TextLines(logging.Formatter):
    """A line a record, times in UTC; an error's stack follows."""

    converter = staticmethod(time.gmtime)

    def __init__(self, user_data: bool = False) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
        self._user_data = user_data

    def format(self, record: logging.LogRecord) -> str:
        shown = copy(record)
        shown.msg, shown.args = message_of(record, self._user_data), None
        return super().format(shown)

    def formatException(self, ei: ExcInfo) -> str:  # noqa: N802 (logging's name)
        return stack(ei[1], self._user_data) if ei[1] is not None else ""


def message_of(record: logging.LogRecord, user_data: bool) -> str:
    """A record's message, without what unexpected errors in it say."""
    if user_data:
        return record.getMessage()
    if record.name == "asyncio" and record.exc_info:  # what follows is the task's repr, with its error's
        return record.getMessage().partition("\n")[0]
    if isinstance(record.args, tuple) and any(isinstance(argument, BaseException) for argument in record.args):
        return str(record.msg) % tuple(map(_argument, record.args))
    return record.getMessage()


def _argument(argument: object) -> object:
    if isinstance(argument, BaseException) and told(argument, user_data=False) is _HIDDEN:
        return f"{_kind(argument)} {_HIDDEN}"
    return argument


def told(error: BaseException, user_data: bool) -> str:
    """What an error says, if that cannot be user data or may be shown."""
    module = type(error).__module__.split(".")[0]
    known = isinstance(error, (SlipstreamError, OSError)) or module in _SPEAK_OF_THEMSELVES
    return str(error) if known or user_data else _HIDDEN


def stack(error: BaseException, user_data: bool) -> str:
    """As Python prints it, oldest cause first."""
    parts = [
        f"{''.join(traceback.format_tb(cause.__traceback__))}{_kind(cause)}: {told(cause, user_data)}"
        for cause in _causes(error)
    ]
    return "\n\nwhich led to\n\n".join(reversed(parts))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _kind(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")


def _printable(text: str) -> str:
    """Without the lone surrogates that JSON cannot carry."""
    return text.encode(errors="replace").decode()


def start_logging(config: LogConfig, output: TextIO | None = None) -> None:
    """Every line of this process to `output`, by default stderr, warnings and unexpected errors of all threads too."""
    handler = logging.StreamHandler(output or sys.stderr)
    handler.setFormatter(
        JsonLines(config.stage, process_id(), config.user_data)
        if config.format == "json"
        else TextLines(config.user_data)
    )
    logging.basicConfig(level=config.level.upper(), handlers=[handler], force=True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = log_thread_error


def in_json() -> bool:
    """Whether this process's lines are JSON."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers)


def log_thread_error(ended: threading.ExceptHookArgs) -> None:
    """A thread ended by an error that nobody expected."""
    if ended.exc_value is not None and not isinstance(ended.exc_value, SystemExit):
        name = ended.thread.name if ended.thread else "?"
        logger.error("the thread %s ended by an unexpected error", name, exc_info=ended.exc_value)


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        logger.critical("unexpected error, the process ends", exc_info=error)
