"""`AsyncStateReader`: `StateReader` (ranker/reader.py) for asyncio. Only the round trip differs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from edge.redis import address
from ranker import connection
from ranker.breaker import Breaker
from ranker.cache import StateCache
from ranker.metrics import ReaderMetrics
from ranker.reader import wall_clock_ms
from ranker.reading import Command, Model, Reading
from ranker.rows import Row
from schemas.errors import ConfigError
from schemas.names import Names

AsyncRedisClient = redis.asyncio.Redis | redis.asyncio.RedisCluster


class AsyncStateReader:
    """Reads states of one model, within one event loop. Arguments, rows and errors are `StateReader`'s."""

    def __init__(
        self,
        client: AsyncRedisClient | str,
        model: Model | None = None,
        names: Names | None = None,
        model_id: str | None = None,
        *,
        deadline_ms: int = connection.DEFAULT_DEADLINE_MS,
        metrics: ReaderMetrics | None = None,
        breaker: Breaker | None = None,
        cache: StateCache | None = None,
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self._limit_s = deadline_ms / 1000 if isinstance(client, str) else None
        self._client: Any = connect(client, deadline_ms / 1000) if isinstance(client, str) else client
        connection.refuse_decoding(self._client)
        self._reading = Reading(names, model, model_id, address(self._client), metrics, breaker, cache)
        self._now_ms = now_ms

    async def read(
        self, users: Sequence[str], max_age_ms: int | None = None, embedding_only: bool = False
    ) -> list[Row]:
        """As `StateReader.read`."""
        reading = self._reading
        try:
            async with asyncio.timeout(self._limit_s):
                if reading.model_id is None:
                    reading.admit()
                    reading.activate(await self._client.get(reading.names.active_key))
                question = reading.ask(users, embedding_only)
                reading.admit(asks=bool(question.commands))
                answers = await self._round_trip(question.commands)
        except connection.ERRORS as error:
            raise reading.failed(error) from error
        return reading.rows(question, answers, self._now_ms(), max_age_ms)

    async def require_active(self) -> None:
        """As `StateReader.require_active`."""
        try:
            async with asyncio.timeout(self._limit_s):
                active = await self._client.get(self._reading.names.active_key)
        except connection.ERRORS as error:
            raise self._reading.failed(error) from error
        self._reading.require_active(active)

    @property
    def model_id(self) -> str | None:
        return self._reading.model_id

    @property
    def metrics(self) -> ReaderMetrics:
        return self._reading.metrics

    async def close(self) -> None:
        with suppress(*connection.ERRORS):  # a Redis that is gone, or does not take leave
            await self._client.aclose()

    async def _round_trip(self, commands: Sequence[Command]) -> list[Any]:
        if not commands:
            return []
        pipe = self._client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        answers: list[Any] = await pipe.execute(raise_on_error=False)
        return answers


def connect(url: str, limit_s: float) -> AsyncRedisClient:
    """As `ranker.reader.connect`; a cluster too is reached at the first call."""
    options = connection.options(url, limit_s)
    try:
        if cluster := connection.cluster(url):
            url, more = cluster
            del options["socket_read_size"]  # not an option of it before redis-py 8
            return redis.asyncio.RedisCluster.from_url(
                url, retry=Retry(NoBackoff(), connection.RETRIES), **more, **options
            )
        retry = Retry(NoBackoff(), connection.RETRIES, supported_errors=connection.RETRIED)
        return redis.asyncio.Redis.from_url(url, retry=retry, **options)
    except ValueError as error:
        raise ConfigError(f"the Redis URL cannot be read: {error}") from None
