"""The demo itself, short: the whole path in processes of its own, each stage killed with -9 in mid-stream, then the oracle."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from slipstream.stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]

SHORT = ("--events", "3000", "--train-seconds", "8", "--rate", "300")


def _demo(data_dir: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "slipstream", "--data-dir", str(data_dir), "demo", "--json", *SHORT, *options]


def _addresses(stack: Stack) -> dict[str, str]:
    return {**os.environ, "SLIPSTREAM_KAFKA_BOOTSTRAP": stack.kafka_bootstrap, "SLIPSTREAM_REDIS_URL": stack.redis_url}


def _summary(output: str) -> dict[str, Any]:
    return json.loads(output.strip().splitlines()[-1])


def test_every_stage_killed_in_mid_stream_and_nothing_is_lost(stack: Stack, tmp_path: Path) -> None:
    kills = [option for stage in ("ingest", "sequence", "encode") for option in ("--kill", stage)]
    done = subprocess.run(
        _demo(tmp_path, *kills), env=_addresses(stack), capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    summary = _summary(done.stdout)
    assert summary["kills"] == 3
    assert summary["events_sent"] == 3000
    assert summary["sequences_checked"] == summary["states_checked"] == summary["users"] > 700
    assert summary["sequences_mismatched"] == summary["states_mismatched"] == 0
    assert summary["malformed_sent"] > 0
    assert summary["dead_letters"] == summary["malformed_sent"]
    assert summary["duplicates_sent"] > 0
    assert summary["late_sent"] > 0
    assert summary["freshness_ms"]["p50"] <= summary["freshness_ms"]["p99"] <= summary["freshness_ms"]["max"]
    assert 0 <= summary["hit_rate_at_10"]["frozen"] <= 1
    report = (tmp_path / "demo" / "report.html").read_text()
    assert report.count("<svg") == 4
    loaded_from_elsewhere = re.findall(r"""<script|<link|@import|url\((?!#)|(?:src|href)=["'](?!#|data:)""", report)
    assert loaded_from_elsewhere == []


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _lives(child: psutil.Process) -> bool:
    """A zombie is dead: whoever inherited it has not looked yet."""
    try:
        return child.is_running() and child.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("after", ["starting", "training", "replaying"])
def test_ctrl_c_leaves_no_process_behind(tmp_path: Path, after: str) -> None:
    """On a stack of its own, which has to go too."""
    said = {"starting": "starting", "training": "training", "replaying": "replaying"}[after]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLIPSTREAM_")}
    log = tmp_path / "stderr"
    with log.open("w") as stderr:
        demo = subprocess.Popen(
            _demo(tmp_path), env=environment, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True
        )
        seen: dict[int, psutil.Process] = {}
        deadline = time.monotonic() + 200
        while said not in log.read_text():
            assert demo.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            seen |= {child.pid: child for child in _descendants(demo.pid)}
            time.sleep(0.1)
        time.sleep(1)
        seen |= {child.pid: child for child in _descendants(demo.pid)}
        os.killpg(demo.pid, signal.SIGINT)
        # A shell sees 130 in both cases: `python -m` ends by the signal itself if it came while a library ran exec() on a string.
        assert demo.wait(60) in (130, -signal.SIGINT), log.read_text()
    assert [child for child in seen.values() if _lives(child)] == []
