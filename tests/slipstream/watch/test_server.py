"""The page's server while there is neither Kafka nor Redis nor a model: it serves, and says so."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.request import urlopen

NOWHERE = "127.0.0.1:1"


def _watch(cwd: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("SLIPSTREAM_")},
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "SLIPSTREAM_KAFKA_BOOTSTRAP": NOWHERE,
        "SLIPSTREAM_REDIS_URL": f"redis://:hunter2@{NOWHERE}",
    }
    command = [sys.executable, "-m", "slipstream", "watch", *arguments]
    return subprocess.Popen(command, cwd=cwd, env=environment, stderr=subprocess.PIPE, text=True)


def _events(stream: IO[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Server-sent events: (name, data)."""
    name = ""
    for line in stream:
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def test_without_anything_it_serves_and_says_what_is_missing(tmp_path: Path) -> None:
    with _watch(tmp_path, "--web", "--port", "0") as process:
        try:
            assert process.stderr is not None
            found = re.match(r"http://127\.0\.0\.1:(\d+)/ shows slipstream", process.stderr.readline())
            assert found
            with _watch(tmp_path, "--web", "--port", found[1]) as second:
                said = second.communicate(timeout=60)[1]
                assert (second.returncode, "--port" in said) == (2, True), said
            with urlopen(f"http://127.0.0.1:{found[1]}/events?user=ada", timeout=60) as stream:
                events = _events(stream)
                view = next(data for name, data in events if name == "user")
                figures = next(data for name, data in events if name == "figures" and not data["kafka"]["ok"])
        finally:
            process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert (view["status"], NOWHERE in view["why"]) == ("unavailable", True)
    assert (figures["redis"]["ok"], NOWHERE in figures["redis"]["said"]) == (False, True)
    assert figures["kafka"]["answered_ms"] is None
    assert figures["freshness"]["p99_ms"] is None
    assert [stage["lag"] for stage in figures["stages"]] == [None] * 3
    assert figures["model"] == {"active": None, "note": ""}
    assert "hunter2" not in json.dumps(figures) + json.dumps(view) + said
    assert (process.returncode, "Traceback" in said) == (130, False), said


def test_one_way_to_watch_at_a_time(tmp_path: Path) -> None:
    with _watch(tmp_path, "--web", "--json") as process:
        said = process.communicate(timeout=60)[1]
    assert (process.returncode, "--json" in said) == (2, True)
