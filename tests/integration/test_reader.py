"""Both readers on a real Redis: every status, damage in place, deadlines and lost connections."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio

from bench.proxy import Proxy, proxied
from ranker.async_reader import AsyncStateReader
from ranker.reader import StateReader
from ranker.rows import Status
from schemas.errors import ConfigError, UnavailableError
from schemas.names import Names
from tests.ranker.readers import Blocking
from tests.ranker.states import ARRIVED_MS, LAYOUT, MODEL_ID, made_marker, made_state

pytestmark = pytest.mark.integration


Open = Callable[..., "StateReader | Blocking"]
DEADLINE_MS = 5000  # generous where the deadline is not the point: the machine is busy


@pytest.fixture(params=[StateReader, Blocking], ids=["sync", "async"])
def open_reader(request: pytest.FixtureRequest, redis_url: str, prefix: str) -> Iterator[Open]:
    opened: list[StateReader | Blocking] = []

    def open_it(url: str = redis_url, model: Any = LAYOUT, **kwargs: Any) -> StateReader | Blocking:
        kwargs = {"deadline_ms": DEADLINE_MS, "now_ms": lambda: ARRIVED_MS + 100, **kwargs}
        opened.append(request.param(url, model, Names(prefix), **kwargs))
        return opened[-1]

    yield open_it
    for reader in opened:
        reader.close()


@pytest.fixture
def put(redis_client: redis.Redis, prefix: str) -> Callable[[str, bytes], bytes]:
    def put_it(user: str, value: bytes) -> bytes:
        key = Names(prefix).state_key(MODEL_ID, user.encode())
        redis_client.set(key, value, px=600_000)
        return key

    return put_it


@pytest.fixture
def proxy(redis_client: redis.Redis) -> Iterator[Proxy]:
    known = redis_client.connection_pool.connection_kwargs
    with proxied(known["host"], known["port"]) as made:
        yield made


def through(proxy: Proxy) -> str:
    return f"redis://127.0.0.1:{proxy.port}"


Put = Callable[[str, bytes], bytes]


def test_every_status_in_one_call(open_reader: Open, put: Put, redis_client: redis.Redis) -> None:
    put("fresh", made_state(1, length=3))
    put("old", made_state(2, arrived_ms=ARRIVED_MS - 60_000))
    put("gone", made_marker())
    put("junk", b"junk")
    redis_client.delete(list_key := put("list", b""))
    redis_client.rpush(list_key, b"x")
    redis_client.expire(list_key, 600)
    put("ü東", made_state(3))
    reader = open_reader()
    users = ["fresh", "old", "nobody", "gone", "junk", "list", "ü東", "", "fresh"]
    for _ in range(2):
        rows = reader.read(users, max_age_ms=1000)
        assert [row.user for row in rows] == users
        assert [row.status.name for row in rows] == [
            "PRESENT", "STALE", "NOT_FOUND", "NOT_FOUND", "INVALID", "INVALID", "PRESENT", "INVALID", "PRESENT",
        ]  # fmt: skip
    assert (rows[0].age_ms, rows[0].length) == (100, 3)
    assert "WRONGTYPE" in rows[5].why
    assert reader.metrics.rows[Status.INVALID] == 2 * 3


def test_embeddings_alone_are_those_of_the_states(open_reader: Open, put: Put) -> None:
    for seed in range(5):
        put(f"u{seed}", made_state(seed))
    put("gone", made_marker())
    reader = open_reader()
    users = [f"u{seed}" for seed in range(5)] + ["gone", "nobody"]
    whole, part = reader.read(users), reader.read(users, embedding_only=True)
    assert [row.status for row in part] == [row.status for row in whole]
    for a, b in zip(whole[:5], part, strict=False):
        assert a.state is not None
        assert b.state is None
        assert a.embedding is not None
        assert b.embedding is not None
        assert a.embedding.tobytes() == b.embedding.tobytes()


def test_damage_in_place_is_an_invalid_row_until_it_is_healed(
    open_reader: Open, put: Put, redis_client: redis.Redis
) -> None:
    key = put("hurt", made_state(1))
    put("well", made_state(2))
    reader = open_reader()
    for at in (0, 30, 90, 130, LAYOUT.header_bytes + 25):
        byte = redis_client.getrange(key, at, at)
        redis_client.setrange(key, at, bytes([byte[0] ^ 0x10]))
        assert [row.status for row in reader.read(["hurt", "well"])] == [Status.INVALID, Status.PRESENT]
        redis_client.setrange(key, at, byte)
        assert [row.status for row in reader.read(["hurt", "well"])] == [Status.PRESENT, Status.PRESENT]


def test_a_call_is_one_round_trip_of_one_command_per_user(
    open_reader: Open, put: Put, redis_client: redis.Redis
) -> None:
    for seed in range(20):
        put(f"u{seed}", made_state(seed))
    reader = open_reader()
    reader.read(["u0"])

    def calls(command: str) -> int:
        return int(redis_client.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))

    before = calls("get"), calls("getrange")
    reader.read([f"u{seed}" for seed in range(20)] * 2)
    reader.read([f"u{seed}" for seed in range(20)], embedding_only=True)
    assert (calls("get") - before[0], calls("getrange") - before[1]) == (20, 20)


# Which model


def test_a_reader_without_a_bundle_follows_the_active_key(
    open_reader: Open, put: Put, redis_client: redis.Redis, prefix: str
) -> None:
    reader = open_reader(model=None)
    with pytest.raises(ConfigError, match=f"has no key {prefix}:active"):
        reader.read(["a"])
    redis_client.set(Names(prefix).active_key, MODEL_ID, px=600_000)
    put("a", made_state(1))
    put("gone", made_marker())
    assert [row.status for row in reader.read(["gone"])] == [Status.NOT_FOUND]
    assert [row.status for row in reader.read(["a"], embedding_only=True)] == [Status.PRESENT]
    assert [row.status for row in reader.read(["a", "b"])] == [Status.PRESENT, Status.NOT_FOUND]
    assert reader.model_id == MODEL_ID


def test_a_ranker_notices_that_another_model_became_active(
    open_reader: Open, redis_client: redis.Redis, prefix: str
) -> None:
    reader = open_reader()
    with pytest.raises(ConfigError, match="no encoder has run"):
        reader.require_active()
    redis_client.set(Names(prefix).active_key, MODEL_ID, px=600_000)
    reader.require_active()
    redis_client.set(Names(prefix).active_key, "ff" * 8, px=600_000)
    with pytest.raises(ConfigError, match=f"names model {'ff' * 8}, this ranker reads {MODEL_ID}"):
        reader.require_active()


# Trouble


def test_a_redis_that_does_not_answer_costs_the_deadline_and_raises(open_reader: Open, put: Put, proxy: Proxy) -> None:
    put("a", made_state(1))
    reader = open_reader(through(proxy), deadline_ms=400)
    assert reader.read(["a"])[0].status is Status.PRESENT
    proxy.answering.clear()
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="within the deadline") as caught:
        reader.read(["a"])
    assert caught.value.retriable
    assert reader.metrics.failures["deadline"] == 1
    assert time.monotonic() - started < 60, "it returned at all, and not after retries without end"
    proxy.answering.set()
    assert reader.read(["a"])[0].status is Status.PRESENT


def test_an_answer_in_pieces_must_be_whole_by_the_deadline(open_reader: Open, put: Put, proxy: Proxy) -> None:
    users = [f"u{i}" for i in range(16)]
    for user in users:
        put(user, bytes(1 << 16))
    put("a", made_state(1))
    reader = open_reader(through(proxy), deadline_ms=400)
    assert reader.read(["a"])[0].status is Status.PRESENT
    proxy.delay_s = 0.1  # of each piece, of 64 KiB at most: no wait is long, but there are 16
    with pytest.raises(UnavailableError, match="within the deadline"):
        reader.read(users)
    proxy.delay_s = 0
    assert reader.read(["a"])[0].status is Status.PRESENT


def test_a_late_answer_never_becomes_another_users_row(open_reader: Open, put: Put, proxy: Proxy) -> None:
    put("a", made_state(1, length=1))
    put("b", made_state(2, length=2))
    reader = open_reader(through(proxy), deadline_ms=400)
    reader.read(["a"])
    proxy.answering.clear()
    with pytest.raises(UnavailableError):
        reader.read(["a"])
    proxy.answering.set()
    assert [(row.user, row.length) for row in reader.read(["b"])] == [("b", 2)]


def test_a_connection_that_redis_closed_is_made_anew_within_the_call(open_reader: Open, put: Put, proxy: Proxy) -> None:
    put("a", made_state(1))
    reader = open_reader(through(proxy))
    assert reader.read(["a"])[0].status is Status.PRESENT
    proxy.cut()
    assert reader.read(["a"])[0].status is Status.PRESENT
    assert proxy.accepted == 2


def test_a_connection_made_anew_has_what_is_left_of_the_deadline(open_reader: Open, put: Put, proxy: Proxy) -> None:
    put("a", made_state(1))
    reader = open_reader(through(proxy), deadline_ms=400)
    assert reader.read(["a"])[0].status is Status.PRESENT
    proxy.answering.clear()
    proxy.cut()
    with pytest.raises(UnavailableError, match="within the deadline"):
        reader.read(["a"])
    assert (proxy.accepted, reader.metrics.failures["deadline"]) == (2, 1), "tried once more, and counted once"


def test_nobody_there_says_where(open_reader: Open, proxy: Proxy) -> None:
    reader = open_reader(through(proxy))
    proxy.close()
    with pytest.raises(UnavailableError, match=f"Redis at 127.0.0.1:{proxy.port}: .*is it running"):
        reader.read(["a"])
    assert reader.metrics.failures["unavailable"] == 1


def test_a_wrong_password_is_a_setting_and_no_outage(open_reader: Open, redis_url: str) -> None:
    url = redis_url.replace("redis://", "redis://nobody:secret-word@")
    with pytest.raises(ConfigError, match="correct the user and password") as caught:
        open_reader(url).read(["a"])
    assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "redis://localhost/?socket_timeout=soon"])
def test_a_url_that_is_none_is_refused_at_once(open_reader: Open, url: str) -> None:
    with pytest.raises(ConfigError, match="Redis URL"):
        open_reader(url)


def test_a_client_that_decodes_text_is_refused_at_once(redis_url: str) -> None:
    with pytest.raises(ConfigError, match="decode_responses=False"):
        StateReader(redis.Redis.from_url(redis_url, decode_responses=True), LAYOUT)
    with pytest.raises(ConfigError, match="decode_responses=False"):
        StateReader(f"{redis_url}?decode_responses=true", LAYOUT)
    with pytest.raises(ConfigError, match="decode_responses=False"):
        AsyncStateReader(redis.asyncio.Redis.from_url(redis_url, decode_responses=True), LAYOUT)


def test_a_client_of_ones_own_is_used_as_it_is(redis_client: redis.Redis, put: Put, prefix: str) -> None:
    put("a", made_state(1))
    assert StateReader(redis_client, LAYOUT, Names(prefix)).read(["a"])[0].status.name in ("PRESENT", "STALE")
