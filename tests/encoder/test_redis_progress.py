"""Marks in Redis that show when it lost writes. Run alone: pytest tests/encoder/test_redis_progress.py"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest
import redis
from redis.crc import key_slot

from encoder.models_redis import delete_states
from encoder.redis_progress import PLACES, Lost, RedisProgress, places
from encoder.store_redis import connect
from schemas.errors import UnavailableError
from schemas.names import Names
from schemas.progress import Mark, decode_mark, encode_mark

MODEL = "0123456789abcdef"
TOPIC, OTHER_TOPIC = bytes(range(16)), bytes(16)
Open = Callable[..., RedisProgress]


@pytest.fixture
def names(prefix: str, redis_client: redis.Redis) -> Iterator[Names]:
    yield Names(prefix)
    for key in redis_client.scan_iter(f"{prefix}:*"):
        redis_client.delete(key)


@pytest.fixture
def open_progress(redis_client: redis.Redis, names: Names) -> Open:
    def open_it(topic_id: bytes = TOPIC) -> RedisProgress:
        return RedisProgress(redis_client, names, MODEL, topic_id)

    return open_it


class Marks:
    """What a fault does to them."""

    def __init__(self, client: redis.Redis, names: Names) -> None:
        self._client, self._names = client, names

    def get(self, partition: int) -> int | None:
        value = self._client.get(self._names.progress_key(MODEL, partition))
        mark = decode_mark(bytes(value), TOPIC) if isinstance(value, bytes) else None
        return mark.next_offset if mark else None

    def set(self, partition: int, next_offset: int) -> None:
        self._client.set(self._names.progress_key(MODEL, partition), encode_mark(Mark(TOPIC, next_offset)))

    def drop(self, partition: int) -> None:
        self._client.delete(self._names.progress_key(MODEL, partition))


@pytest.fixture
def marks(redis_client: redis.Redis, names: Names) -> Marks:
    return Marks(redis_client, names)


def test_progress_without_a_loss(open_progress: Open, marks: Marks) -> None:
    progress = open_progress()
    assert progress.begin({0: None, 1: None}) == {}
    assert progress.advance({0: 50}) == {}
    assert progress.advance({0: 70, 1: 5}) == {}
    assert progress.advance({}) == {}
    assert (marks.get(0), marks.get(1)) == (70, 5)
    heir = open_progress()
    assert heir.begin({0: 60, 1: 5}) == {}, "killed after it wrote the mark and before it committed"
    assert marks.get(0) == 60, "from here on it writes again what is behind"
    assert heir.advance({0: 61}) == {}


def test_an_emptied_redis_is_noticed_with_records_and_without(open_progress: Open, marks: Marks) -> None:
    progress = open_progress()
    progress.begin({0: None, 1: 40, 2: None})  # 1 was encoded before, into a Redis that is gone
    progress.advance({0: 50, 1: 60})
    for partition in range(3):
        marks.drop(partition)
    assert progress.advance({0: 55}) == {0: Lost(0, 50), 1: Lost(0, 60), 2: Lost(0, 0)}
    assert marks.get(0) == 0, "it does not hide the loss from a successor"
    assert progress.advance({}) == {}
    marks.drop(0)
    assert progress.advance({0: 3}) == {0: Lost(0, 0)}, "a second loss, before anything was read again"
    assert progress.advance({0: 3}) == {}
    assert marks.get(0) == 3


def test_an_older_copy_says_from_where_on(open_progress: Open, marks: Marks) -> None:
    progress = open_progress()
    progress.begin({0: None})
    progress.advance({0: 50})
    marks.set(0, 30)
    lost = progress.advance({0: 60})
    assert lost == {0: Lost(30, 50)}
    assert not lost[0].everything
    assert progress.advance({0: 45}) == {}
    assert marks.get(0) == 45


def test_a_loss_while_nobody_was_there(open_progress: Open, marks: Marks) -> None:
    assert open_progress().begin({0: 50, 1: 50, 2: None}) == {0: Lost(0, 50), 1: Lost(0, 50)}
    marks.set(0, 30)
    assert open_progress().begin({0: 50, 1: 0}) == {0: Lost(30, 50)}
    assert marks.get(0) == 30


def test_a_worker_taken_for_dead_cannot_hide_a_loss(open_progress: Open, marks: Marks) -> None:
    zombie, heir = open_progress(), open_progress()
    zombie.begin({0: None})
    zombie.advance({0: 50})
    heir.begin({0: 50})
    heir.advance({0: 80})
    assert zombie.advance({0: 55}) == {}, "the heir is further"
    assert marks.get(0) == 80
    marks.set(0, 20)
    assert heir.advance({0: 90}) == {0: Lost(20, 80)}
    assert zombie.advance({0: 90}) == {0: Lost(20, 80)}
    assert marks.get(0) == 20, "nobody has read again yet"


def test_a_topic_made_anew_and_a_foreign_value_say_nothing(
    open_progress: Open, marks: Marks, redis_client: redis.Redis, names: Names
) -> None:
    open_progress(OTHER_TOPIC).begin({0: None})
    open_progress(OTHER_TOPIC).advance({0: 90})
    assert open_progress().begin({0: None}) == {}
    redis_client.set(names.progress_key(MODEL, 0), "nonsense")
    assert open_progress().begin({0: 7}) == {0: Lost(0, 7)}
    assert marks.get(0) == 0


def test_partitions_that_went_are_not_watched(open_progress: Open, marks: Marks) -> None:
    progress = open_progress()
    progress.begin({0: None, 1: None})
    progress.forget([0, 7])
    marks.drop(0)
    assert progress.advance({0: 9, 1: 9}) == {}
    assert (marks.get(0), marks.get(1)) == (None, 9)


def test_each_part_of_a_clusters_slots_has_a_place(names: Names) -> None:
    slots = [key_slot(names.progress_key(MODEL, 3, place).encode()) for place in places()]
    assert [slot * PLACES // 16384 for slot in slots] == list(range(PLACES))


def test_a_redis_that_is_away_is_asked_later_and_nothing_is_forgotten(
    names: Names, redis_url: str, redis_client: redis.Redis, marks: Marks
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    away = RedisProgress(connect(f"redis://127.0.0.1:{port}/0", timeout_s=0.2), names, MODEL, TOPIC)
    with pytest.raises(UnavailableError):
        away.begin({0: 5})
    full = RedisProgress(connect(redis_url), names, MODEL, TOPIC)
    full.begin({0: None})
    redis_client.config_set("maxmemory", 1)
    try:
        with pytest.raises(UnavailableError, match="maxmemory"):
            full.advance({0: 5})
    finally:
        redis_client.config_set("maxmemory", 0)
    assert full.advance({0: 5}) == {}
    assert marks.get(0) == 5


def test_a_retired_model_leaves_no_marks(
    open_progress: Open, marks: Marks, redis_client: redis.Redis, names: Names
) -> None:
    open_progress().begin({0: None})
    assert delete_states(redis_client, names, MODEL, lambda _: None) == 0
    assert marks.get(0) is None


def test_the_bytes_of_a_mark() -> None:
    assert encode_mark(Mark(TOPIC, 0x0102)) == TOPIC + bytes([2, 1, 0, 0, 0, 0, 0, 0])
    assert decode_mark(encode_mark(Mark(TOPIC, 5)), TOPIC) == Mark(TOPIC, 5)
    assert decode_mark(encode_mark(Mark(TOPIC, 5)), OTHER_TOPIC) is None
    assert decode_mark(encode_mark(Mark(TOPIC, -5)), TOPIC) is None
    assert decode_mark(b"", TOPIC) is None
