"""examples/read-states: both programs on states that the encoder wrote, and on a Redis that is not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.rank_states import Ranked, write_states
from ranker import Dcat, Request, StateReader
from schemas.names import Names
from tests.documents import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

EXAMPLE = ROOT / "examples" / "read-states"


def run(program: str, ranked: Ranked, redis_url: str, *users: str) -> subprocess.CompletedProcess[str]:
    settings = {
        "SLIPSTREAM_REDIS_URL": redis_url,
        "SLIPSTREAM_PREFIX": ranked.names.prefix,
        "SLIPSTREAM_BUNDLE": str(ranked.bundle.directory),
    }
    command = [sys.executable, str(EXAMPLE / program), *users]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLIPSTREAM_")}
    return subprocess.run(
        command, cwd=EXAMPLE, env={**environment, **settings}, capture_output=True, text=True, timeout=300
    )


def test_they_print_what_the_states_say(redis_url: str, prefix: str, tmp_path: Path) -> None:
    ranked = write_states(redis_url, Names(prefix), tmp_path / "model", "nano", 3)
    rows = StateReader(redis_url, ranked.bundle, ranked.names, deadline_ms=10_000).read([*ranked.users, "nobody"])
    candidates = np.asarray(ranked.bundle.catalogue_ids[:5])
    crossed = Dcat.of(ranked.bundle).score([Request(row, candidates) for row in rows])
    for program in ("read.py", "read_async.py"):
        done = run(program, ranked, redis_url, *ranked.users, "nobody")
        assert done.returncode == 0, done.stderr
        for line, row, scores in zip(done.stdout.splitlines(), rows, crossed, strict=True):
            statuses = ("present", "stale") if row.state is not None else ("not_found",)
            assert line.startswith(tuple(f"{row.user}: {status}, {row.length} events, " for status in statuses))
            assert line.endswith(f"best of 5: {candidates[scores.score.argmax()]}")
        gone = run(program, ranked, "redis://127.0.0.1:1", "u")
        assert (gone.returncode, "rank by popularity meanwhile: " in gone.stderr) == (1, True), gone.stderr
        assert "Traceback" not in gone.stderr
