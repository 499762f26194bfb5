"""Run: pytest tests/edge/test_log_lines.py"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge.log_lines import JsonLines, TextLines
from schemas.errors import UnavailableError

USER = "marked-user-4711"


def record(message: str, *arguments: object, error: BaseException | None = None, **extra: Any) -> logging.LogRecord:
    kind = (type(error), error, error.__traceback__) if error is not None else None
    made = logging.LogRecord("stream.ingest", logging.WARNING, __file__, 1, message, arguments, kind)
    made.created = 1_767_225_600.0
    made.__dict__.update(extra)
    return made


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def test_a_line_has_the_documented_fields() -> None:
    shown = JsonLines("ingest", "host-7").format(
        record("two\nlines, %s", "\ud800 grüße", topic="p.engagements", partition=0, offset=42, user=USER)
    )
    assert "\n" not in shown
    assert json.loads(shown) == {
        "time": "2026-01-01T00:00:00.000Z",
        "level": "warning",
        "logger": "stream.ingest",
        "message": "two\nlines, ? grüße",
        "stage": "ingest",
        "worker": "host-7",
        "topic": "p.engagements",
        "partition": 0,
        "offset": 42,
    }


def test_what_libraries_attach_never_breaks_a_line() -> None:
    shown = json.loads(JsonLines("sequence", "host-7").format(record("m", topic=object(), partition={1, 2})))
    assert (shown["message"], "object" in shown["topic"], shown["partition"]) == ("m", True, [1, 2])


@pytest.mark.parametrize("formatter", [JsonLines("encode", "host-7"), TextLines()])
def test_an_unexpected_errors_message_is_left_out(formatter: logging.Formatter) -> None:
    error = raised(KeyError(USER), raised(UnicodeDecodeError("utf-8", USER.encode(), 0, 1, "no")))
    shown = formatter.format(record("it ends", error=error))
    assert USER not in shown
    for part in ("KeyError", "UnicodeDecodeError", "log_user_data", "test_log_lines.py"):
        assert part in shown


@pytest.mark.parametrize("formatter", [JsonLines("encode", "host-7"), TextLines()])
def test_nor_is_it_told_by_who_logs_the_error_itself(formatter: logging.Formatter) -> None:
    """As Faust does, and asyncio for a task that nobody waited for."""
    shown = formatter.format(
        record("%s crashed: %r, after %r", "agent", KeyError(USER), UnavailableError("Redis at h:1"))
    )
    assert USER not in shown
    assert all(part in shown for part in ("agent crashed", "KeyError", "Redis at h:1"))
    lost = record(f"never retrieved\nfuture: <Task exception=KeyError({USER!r})>", error=raised(KeyError(USER)))
    lost.name = "asyncio"
    assert USER not in formatter.format(lost)


@pytest.mark.parametrize("formatter", [JsonLines("encode", "host-7", user_data=True), TextLines(user_data=True)])
def test_a_setting_shows_it(formatter: logging.Formatter) -> None:
    assert USER in formatter.format(record("it ends", error=raised(KeyError(USER))))


def test_our_own_errors_and_the_systems_are_told() -> None:
    line = json.loads(JsonLines("encode", "h").format(record("m", error=raised(UnavailableError("Redis at h:1")))))
    assert (line["exception"]["type"], line["exception"]["message"]) == (
        "schemas.errors.UnavailableError",
        "Redis at h:1",
    )
    assert "No such file" in TextLines().format(record("m", error=raised(FileNotFoundError(2, "No such file"))))


PROGRAM = """
import logging, sys, threading, warnings
from confluent_kafka import Producer
from edge.kafka import KafkaConfig
from edge.log_lines import LogConfig, start_logging

start_logging(LogConfig("ingest", "info", "json"))
logging.getLogger("faust.app.base").warning("Faust's own")
logging.getLogger("aiokafka").critical("aiokafka's own")
warnings.warn("a library's warning")
Producer(KafkaConfig("127.0.0.1:1", {"log_level": "6"}).client()).poll(1)
thread = threading.Thread(target=lambda: {}["marked-user-4711"])
thread.start(); thread.join()
{}["marked-user-4711"]
"""


def test_every_line_of_a_process_is_json_whoever_writes_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2]
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {"faust.app.base", "aiokafka", "py.warnings", "librdkafka", "edge.log_lines"} == {
        line["logger"] for line in lines
    }
    assert [line["exception"]["type"] for line in lines if "exception" in line] == ["KeyError", "KeyError"]
    assert (done.returncode, USER in done.stderr) == (1, False)


def test_an_error_that_ends_a_stage_is_a_line_too(tmp_path: Path) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SLIPSTREAM_")},
        "SLIPSTREAM_KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "SLIPSTREAM_KAFKA_OPTIONS": '{"security.protocol": "SSL", "ssl.ca.location": "/nowhere", "sasl.password": "hunter2"}',
    }
    command = [sys.executable, "-m", "slipstream", "--log-format", "json", "ingest"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment, check=False
    )
    (line,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert (done.returncode, line["level"], line["stage"]) == (2, "critical", "ingest")
    assert "kafka_options" in line["message"]
    assert "hunter2" not in done.stderr
