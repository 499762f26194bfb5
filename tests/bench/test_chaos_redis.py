"""What a chaos run does to Redis is what it says: on real servers. Run alone: pytest tests/bench/test_chaos_redis.py"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path

import pytest
import redis

from bench.chaos.redis import RedisInTrouble
from encoder.store_redis import connect
from schemas.errors import UnavailableError

pytestmark = pytest.mark.integration


@pytest.fixture
def trouble(tmp_path: Path) -> Iterator[RedisInTrouble]:
    made = RedisInTrouble(tmp_path / "redis", lambda text: None)
    yield made
    made.close()


@pytest.fixture
def client(trouble: RedisInTrouble) -> Iterator[redis.Redis]:
    """As an encoder has it."""
    made = connect(trouble.url)
    assert isinstance(made, redis.Redis)
    with made:
        yield made


async def meanwhile(fault: Coroutine[None, None, None], client: redis.Redis) -> list[int]:
    """Writes a number every 20 ms until the fault is over; those that Redis acknowledged."""
    task, acknowledged = asyncio.create_task(fault), []
    for number in range(10_000):
        await asyncio.sleep(0.02)
        if task.done():
            break
        try:
            client.set(f"n{number}", number)
            acknowledged.append(number)
        except (redis.RedisError, OSError):
            pass
    await task
    return acknowledged


def test_a_kill_keeps_nothing(trouble: RedisInTrouble, client: redis.Redis) -> None:
    client.set("a", 1)
    asyncio.run(trouble.kill(0.1))
    assert client.get("a") is None
    assert len(trouble.absences) == 1


@pytest.mark.parametrize("fault", ["cut_power", "fail_over"])
def test_the_last_second_is_lost_and_what_was_before_is_not(
    trouble: RedisInTrouble, client: redis.Redis, fault: str
) -> None:
    client.set("before", 1)
    fate = trouble.cut_power(0.1) if fault == "cut_power" else trouble.fail_over(1.0)
    acknowledged = asyncio.run(meanwhile(fate, client))
    lost = [i for i, number in enumerate(acknowledged) if not client.exists(f"n{number}")]
    assert client.get("before") == b"1"
    assert len(lost) > 10
    assert lost == list(range(lost[0], lost[-1] + 1)), "the last ones before it happened, and none else"
    client.set("after", 1)
    assert client.get("after") == b"1"


def test_evicted_keys_are_known(trouble: RedisInTrouble, client: redis.Redis) -> None:
    keys = {b"%d" % i for i in range(2000)}
    for key in keys:
        client.set(key, bytes(1000))
    asyncio.run(trouble.evict(0.5))
    left = set(client.keys())
    assert 0 < len(trouble.evicted) < len(keys)
    assert left == keys - trouble.evicted
    client.set("a", 1)


def test_a_full_one_refuses_writes_and_a_slow_one_takes_its_time(trouble: RedisInTrouble, client: redis.Redis) -> None:
    async def full() -> None:
        fault = asyncio.create_task(trouble.fill(0.3))
        await asyncio.sleep(0.1)
        with pytest.raises(redis.OutOfMemoryError):
            client.set("a", 1)
        await fault

    asyncio.run(full())
    client.set("a", 1)

    async def slow() -> float:
        fault = asyncio.create_task(trouble.slow_down(0.3))
        await asyncio.sleep(0)
        began_s = time.monotonic()
        client.get("a")
        took_s = time.monotonic() - began_s
        await fault
        return took_s

    assert asyncio.run(slow()) >= 0.1


def test_a_frozen_one_does_late_what_it_was_asked(trouble: RedisInTrouble) -> None:
    impatient = redis.Redis.from_url(trouble.url, socket_timeout=0.2, retry=None)

    async def freeze() -> None:
        fault = asyncio.create_task(trouble.freeze(0.6))
        await asyncio.sleep(0)
        with pytest.raises(redis.TimeoutError):
            impatient.set("a", 1)
        await fault

    impatient.ping()
    asyncio.run(freeze())
    assert impatient.get("a") == b"1", "done, though nobody heard of it"


def test_nobody_there_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.chaos.redis._ANSWERS_WITHIN_S", 0.2)
    monkeypatch.setattr("bench.chaos.redis.redis_server", lambda *_: _Program(Path("/bin/false")))
    with pytest.raises(UnavailableError, match="Redis answers"):
        RedisInTrouble(tmp_path / "redis", lambda text: None)


class _Program:
    def __init__(self, binary: Path) -> None:
        self.binary = binary
