"""The readers' cache: what is kept, for how long, and what a row from it says."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from prometheus_client import CollectorRegistry

from ranker.cache import StateCache
from ranker.metrics import ReaderMetrics
from ranker.reader import StateReader
from ranker.reading import Reading
from ranker.rows import Row, Status
from schemas.errors import ConfigError
from schemas.names import Names
from tests.ranker.states import ARRIVED_MS, LAYOUT, MODEL_ID, made_marker, made_state


class Clock:
    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


class Answering:
    """A reading whose answers are given by the test."""

    def __init__(self, cache: StateCache) -> None:
        self.registry = CollectorRegistry()
        metrics = ReaderMetrics(self.registry)
        self._reading = Reading(Names("p"), LAYOUT, None, "localhost:6379", metrics, cache=cache)
        self.asked: list[str] = []

    def read(
        self, stored: dict[str, Any], users: list[str], age_ms: int = 0, embedding_only: bool = False
    ) -> list[Row]:
        question = self._reading.ask(users, embedding_only)
        self.asked = [str(command[1], "ascii").rpartition(":")[2] for command in question.commands]
        return self._reading.rows(question, [stored.get(user) for user in self.asked], ARRIVED_MS + age_ms, 500)


def test_a_state_is_asked_for_once_in_a_while_and_grows_older() -> None:
    clock = Clock()
    reader = Answering(StateCache(1000, clock_s=clock))
    stored = {"a": made_state(1), "b": made_state(2)}
    first = reader.read(stored, ["a", "b"])
    assert reader.asked == ["a", "b"]
    again = reader.read({}, ["b", "a", "b"], age_ms=400)
    assert reader.asked == []
    assert [row.user for row in again] == ["b", "a", "b"]
    assert [row.status for row in again] == [Status.PRESENT] * 3
    assert again[1].age_ms == 400
    assert again[1].state is first[0].state
    assert [row.status for row in reader.read({}, ["a"], age_ms=501)] == [Status.STALE], "its age is not the cache's"
    clock.now_s += 1.0
    assert [row.status for row in reader.read({}, ["a"])] == [Status.NOT_FOUND], "read again"
    assert reader.asked == ["a"]
    assert reader.registry.get_sample_value("slipstream_ranker_cached_rows_total") == 3


def test_an_embedding_is_not_enough_for_who_wants_the_state() -> None:
    reader = Answering(StateCache())
    stored = {"a": made_state(1)}
    header = {"a": made_state(1)[: LAYOUT.header_bytes]}
    assert reader.read(header, ["a"], embedding_only=True)[0].state is None
    assert reader.read({}, ["a"], embedding_only=True)[0].status is Status.PRESENT
    assert reader.read(stored, ["a"])[0].state is not None
    assert reader.asked == ["a"]
    assert reader.read({}, ["a"], embedding_only=True)[0].embedding is not None
    assert reader.asked == []


def test_only_what_was_verified_is_kept() -> None:
    reader = Answering(StateCache())
    for value in (None, made_marker(), made_state(1)[:100], made_state(1)[: LAYOUT.value_bytes(5) - 1]):
        reader.read({"a": value}, ["a"])
        reader.read({}, ["a"])
        assert reader.asked == ["a"]


def test_it_keeps_what_fits() -> None:
    state = made_state(1, length=16)
    reader = Answering(StateCache(max_bytes=3 * len(state)))
    for user in "abcdefgh":
        reader.read({user: state}, [user])
    reader.read({}, list("abcdefgh"))
    assert 4 <= len(reader.asked) <= 7
    assert "h" not in reader.asked
    nothing = Answering(StateCache(max_bytes=1))
    nothing.read({"a": state}, ["a"])
    nothing.read({}, ["a"])
    assert nothing.asked == ["a"]


@pytest.mark.parametrize("wrong", [(0, 1), (1, 0)])
def test_what_cannot_be_is_refused(wrong: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="must be positive"):
        StateCache(*wrong)


@pytest.mark.integration
def test_a_reader_with_a_cache_does_not_ask_redis_again(redis_url: str, prefix: str) -> None:
    names, clock = Names(prefix), Clock()
    client = redis.Redis.from_url(redis_url)
    key = names.state_key(MODEL_ID, b"u-1")
    client.set(key, made_state(1))
    reader = StateReader(redis_url, LAYOUT, names, cache=StateCache(clock_s=clock))
    assert reader.read(["u-1"])[0].status is Status.PRESENT
    client.delete(key)
    assert reader.read(["u-1", "u-2"])[0].status is Status.PRESENT
    clock.now_s += 2
    assert reader.read(["u-1"])[0].status is Status.NOT_FOUND
