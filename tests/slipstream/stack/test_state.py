from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

from schemas.errors import ConfigError
from slipstream.stack import How, Part, current
from slipstream.stack.process import ProcessId
from slipstream.stack.state import STATE_FILE, StackState, load, locked, save

KAFKA = Part(
    how=How.PROCESS,
    address="127.0.0.1:20001",
    ports={"client": 20001, "controller": 20002},
    process=ProcessId(17, 1234.5),
    cluster_id="abc",
    log="/somewhere/broker.log",
    started_at_ms=1_700_000_000_000,
)
REDIS = Part(how=How.EXTERNAL, address="redis://:secret@cache/0")


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    assert load(tmp_path / "new") == StackState()
    state = StackState().with_part("kafka", KAFKA).with_part("redis", REDIS)
    save(tmp_path / "new", state)
    assert load(tmp_path / "new") == state
    assert [file.name for file in (tmp_path / "new").iterdir()] == [STATE_FILE]  # no temporary file stays
    assert state.part("kafka") == KAFKA
    assert state.with_part("kafka", None).part("kafka") is None


def test_the_current_stack_needs_both_parts(tmp_path: Path) -> None:
    assert current(tmp_path) is None
    save(tmp_path, StackState(kafka=KAFKA))
    assert current(tmp_path) is None
    save(tmp_path, StackState(kafka=KAFKA, redis=REDIS))
    stack = current(tmp_path)
    assert stack is not None
    assert (stack.kafka_bootstrap, stack.redis_url, stack.data_dir) == (KAFKA.address, REDIS.address, tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b'{"version": 1, "kafka": ', b"[]", b'{"kafka": {"how": "magic", "address": "x"}}', b"\xff\x00"]
)
def test_an_unreadable_file_is_an_error_that_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STATE_FILE).write_bytes(content)
    with pytest.raises(ConfigError, match="delete the file"):
        load(tmp_path)


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_text('{"version": 2}')
    with pytest.raises(ConfigError, match="version 2"):
        load(tmp_path)


def test_a_failed_save_leaves_the_former_file(tmp_path: Path) -> None:
    save(tmp_path, StackState(kafka=KAFKA))
    with pytest.raises(TypeError):
        save(tmp_path, StackState(redis=object()))  # type: ignore[arg-type]
    assert load(tmp_path) == StackState(kafka=KAFKA)
    assert [file.name for file in tmp_path.iterdir()] == [STATE_FILE]


def _hold(lock: Path, log: Path, hold_s: float) -> None:
    with locked(lock):
        with log.open("a") as file:
            file.write("in\n")
        time.sleep(hold_s)
        with log.open("a") as file:
            file.write("out\n")


def test_one_process_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    holders = [spawn.Process(target=_hold, args=(tmp_path / "lock", log, 0.1)) for _ in range(3)]
    for holder in holders:
        holder.start()
    for holder in holders:
        holder.join()
    assert log.read_text().split() == ["in", "out"] * 3


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    log = tmp_path / "log"
    holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(tmp_path / "lock", log, 60.0))
    holder.start()
    while not log.exists():
        time.sleep(0.01)
    holder.kill()
    holder.join()
    with locked(tmp_path / "lock"):
        pass
