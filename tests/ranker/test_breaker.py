"""The circuit breaker: alone by a clock, and in a reader whose Redis stops and comes back."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
import redis

from ranker.async_reader import AsyncStateReader
from ranker.breaker import Breaker
from ranker.reader import StateReader
from ranker.rows import Status
from schemas.errors import ConfigError, UnavailableError
from schemas.names import Names
from slipstream.stack import Stack, running, start_part, stop_part


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_it_opens_after_failures_in_a_row_and_closes_with_an_answer() -> None:
    clock = Clock()
    breaker = Breaker(3, 2.0, clock)
    for _ in range(2):
        breaker.failed()
    breaker.answered()
    for _ in range(2):
        breaker.failed()
        assert breaker.admits(), "not in a row"
    breaker.failed()
    assert breaker.is_open
    assert not breaker.admits()
    clock.now_s += 2.0
    assert breaker.admits(), "one may try"
    assert not breaker.admits(), "and no other meanwhile"
    breaker.failed()
    clock.now_s += 1.9
    assert not breaker.admits(), "as long again"
    clock.now_s += 0.1
    assert breaker.admits()
    breaker.answered()
    assert not breaker.is_open
    assert breaker.admits()


def test_of_many_threads_one_tries() -> None:
    clock = Clock()
    breaker = Breaker(1, 1.0, clock)
    breaker.failed()
    clock.now_s += 1.0
    admitted: list[bool] = []
    threads = [threading.Thread(target=lambda: admitted.append(breaker.admits())) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(admitted) == 1


@pytest.mark.parametrize("wrong", [(0, 1.0), (1, 0.0)])
def test_what_cannot_be_is_refused(wrong: tuple[int, float]) -> None:
    with pytest.raises(ConfigError, match="must be positive"):
        Breaker(*wrong)


@pytest.mark.integration
def test_a_reader_fails_at_once_while_redis_is_away_and_finds_it_again(stack: Stack, tmp_path: Path) -> None:
    names, model_id = Names("breaker"), "0123456789abcdef"
    clock = Clock()
    with running(tmp_path / "redis", stack.kafka_bootstrap) as own:
        breaker = Breaker(2, 30.0, clock)
        reader = StateReader(own.redis_url, None, names, model_id, breaker=breaker)
        asked = AsyncStateReader(own.redis_url, None, names, model_id, breaker=breaker)
        assert reader.read(["u-1"])[0].status is Status.NOT_FOUND
        stop_part(tmp_path / "redis", "redis")
        for _ in range(2):
            with pytest.raises(UnavailableError, match="is it running"):
                reader.read(["u-1"])
        with pytest.raises(UnavailableError, match="is not asked for a moment"):
            reader.read(["u-1"])
        with pytest.raises(UnavailableError, match="is not asked for a moment"):
            asyncio.run(asked.read(["u-1"]))
        assert (reader.metrics.failures["circuit_open"], asked.metrics.failures["circuit_open"]) == (1, 1)
        start_part(tmp_path / "redis", "redis")
        with pytest.raises(UnavailableError, match="is not asked for a moment"):
            reader.read(["u-1"])
        clock.now_s += 30.0
        assert reader.read(["u-1"])[0].status is Status.NOT_FOUND
        assert not breaker.is_open


@pytest.mark.integration
def test_a_reader_that_follows_the_active_model_is_back_with_its_first_answer(redis_url: str, prefix: str) -> None:
    """Its first read asks twice: for the model, and for the states. The answer to the one lets the other through."""
    names, clock = Names(prefix), Clock()
    breaker = Breaker(1, 30.0, clock)
    reader = StateReader(redis_url, None, names, breaker=breaker)
    redis.Redis.from_url(redis_url).set(names.active_key, "0123456789abcdef")
    breaker.failed()
    clock.now_s += 30.0
    assert reader.read(["u-1"])[0].status is Status.NOT_FOUND
