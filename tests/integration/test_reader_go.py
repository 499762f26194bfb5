"""The reader in another language: examples/reader-go, written from docs/state-format.md, beside ours on the encoder's states."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from bench.proxy import proxied
from bench.rank_states import Ranked, write_states
from encoder.engine import Engine, Update
from encoder.hot import HotStates
from encoder.refresh import Refresher
from encoder.store_redis import RedisStateStore
from ranker.reader import StateReader
from schemas.names import Names
from schemas.scales import decode_scales
from schemas.sequence import NO_RECORDS
from schemas.state import Fence

EXAMPLE = Path(__file__).parents[2] / "examples" / "reader-go"
GO = shutil.which("go")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(GO is None, reason="Go is not installed, so examples/reader-go cannot be built"),
]


def go(*arguments: str) -> None:
    done = subprocess.run(
        [GO or "go", *arguments],
        cwd=EXAMPLE,
        env={**os.environ, "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("go") / "reader"
    go("build", "-o", str(built), ".")
    return built


@pytest.fixture
def ranked(redis_url: str, prefix: str, tmp_path: Path) -> Ranked:
    return write_states(redis_url, Names(prefix), tmp_path / "model", "nano", 6)


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(program: Path, ranked: Ranked, redis_client: redis.Redis) -> Run:
    known = redis_client.connection_pool.connection_kwargs

    def run_it(*arguments: str, port: int = known["port"], deadline: str = "30s") -> subprocess.CompletedProcess[str]:
        common = ["-bundle", str(ranked.bundle.directory), "-prefix", ranked.names.prefix]
        command = [str(program), *common, "-redis", f"{known['host']}:{port}", "-deadline", deadline, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    return run_it


def rows(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_its_own_tests_pass_on_the_golden_files() -> None:
    go("vet", "./...")
    go("test", "-count=1", "./...")


def test_it_reads_what_ours_reads(run: Run, ranked: Ranked) -> None:
    got = rows(run(*ranked.users))
    ours = StateReader(ranked.redis_url, ranked.bundle, ranked.names).read(ranked.users)
    for theirs, row in zip(got, ours, strict=True):
        assert row.state is not None
        assert row.embedding is not None
        assert (theirs["user"], theirs["status"], theirs["length"]) == (row.user, "PRESENT", row.length)
        # Go writes the shortest decimal that is the same float32.
        np.testing.assert_array_equal(np.array(theirs["embedding"], np.float32), row.embedding)
        slots = row.state.slots
        assert [tuple(slot["event"].values()) for slot in theirs["slots"]] == slots["event"].tolist()
        assert [slot["kv"] for slot in theirs["slots"]] == slots["kv"].reshape(len(slots), -1).tolist()
        scales = np.array([slot["scales"] for slot in theirs["slots"]], np.float32)
        np.testing.assert_array_equal(scales, decode_scales(slots["scale_codes"]).reshape(len(slots), -1))
    part = rows(run("-embedding-only", "-max-age-ms", "1", *ranked.users))
    assert [row["embedding"] for row in part] == [row["embedding"] for row in got]
    assert {row["status"] for row in part} == {"STALE"}
    assert all("slots" not in row for row in part)


def test_every_status_and_one_bad_row_spoils_no_other(run: Run, ranked: Ranked, redis_client: redis.Redis) -> None:
    def key(user: int) -> bytes:
        return ranked.names.state_key(ranked.bundle.model_id, ranked.users[user].encode())

    byte = redis_client.getrange(key(1), 3000, 3000)
    redis_client.setrange(key(1), 3000, bytes([byte[0] ^ 1]))
    redis_client.set(key(2), redis_client.get(key(2))[:500])
    redis_client.delete(key(3))
    redis_client.delete(key(4))
    redis_client.rpush(key(4), b"x")
    store = RedisStateStore(redis_client, ranked.names, ranked.bundle.layout)
    refresher = Refresher(ranked.runtime, ranked.bundle.features, ranked.bundle.layout)
    forget = Update(ranked.users[5].encode(), NO_RECORDS, Fence(bytes(16), 0, 1000), 1)
    Engine(refresher, store, HotStates(ranked.bundle.layout, 0)).refresh([forget])
    got = rows(run(*ranked.users))
    assert [row["status"] for row in got] == ["PRESENT", "INVALID", "INVALID", "NOT_FOUND", "INVALID", "NOT_FOUND"]
    assert "checksum" in got[1]["why"]
    assert "WRONGTYPE" in got[4]["why"]
    assert "forgotten" in got[5]["why"]
    ours = StateReader(ranked.redis_url, ranked.bundle, ranked.names).read(ranked.users)
    assert [row["status"] for row in got] == [row.status.name for row in ours]


def test_what_is_no_rows_trouble_ends_it_with_a_message(run: Run, ranked: Ranked, redis_client: redis.Redis) -> None:
    known = redis_client.connection_pool.connection_kwargs
    with proxied(known["host"], known["port"]) as proxy:
        assert rows(run(ranked.users[0], port=proxy.port))[0]["status"] == "PRESENT"
        proxy.answering.clear()
        silent = run(ranked.users[0], port=proxy.port, deadline="200ms")
    redis_client.acl_setuser(ranked.names.prefix, enabled=True, passwords=["+secret"], commands=["+get"], keys=["*"])
    try:
        login = ("-user", ranked.names.prefix, "-password")
        assert rows(run(*login, "secret", ranked.users[0]))[0]["status"] == "PRESENT"
        refused = run(*login, "wrong", ranked.users[0])
    finally:
        redis_client.acl_deluser(ranked.names.prefix)
    gone = run(ranked.users[0], port=proxy.port)
    redis_client.set(ranked.names.active_key, "ff" * 8, px=600_000)
    other = run(ranked.users[0])
    for done, said in (
        (silent, "no answer within 200ms"),
        (refused, "WRONGPASS"),
        (gone, "is it running"),
        (other, "load the bundle of ffff"),
    ):
        assert done.returncode == 1
        assert said in done.stderr
        assert "goroutine" not in done.stderr
