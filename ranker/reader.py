"""`StateReader`: many users' states in one round trip.

    reader = StateReader("redis://localhost:6379", load_bundle("model"))
    for row in reader.read(["u-17", "u-42"], max_age_ms=60_000):
        print(row.user, row.status, row.age_ms, row.length, row.why)

`AsyncStateReader` (ranker/async_reader.py) is the same for asyncio.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from edge.redis import address
from ranker import connection
from ranker.bounded import BoundedPool, Deadline
from ranker.breaker import Breaker
from ranker.cache import StateCache
from ranker.metrics import ReaderMetrics
from ranker.reading import Command, Model, Reading
from ranker.rows import Row, Status
from schemas.errors import ConfigError, UnavailableError
from schemas.names import Names

__all__ = ["Row", "StateReader", "Status"]

RedisClient = redis.Redis | redis.RedisCluster


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class StateReader:
    """Reads states of one model. Threads may share it, as far as they may share its client (redis-py's may be shared)."""

    def __init__(
        self,
        client: RedisClient | str,
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
        """
        Args:
            client: a URL, with a user and password of Redis' ACL if it has them: redis://, rediss:// (TLS), unix://, and
                redis+cluster://, rediss+cluster://; with `?read_from_replicas=yes` a cluster's replicas are asked too, and a
                replica's own URL is as good as any. Or a client of your own, standalone or cluster, that answers bytes; then
                its own timeouts hold, and not `deadline_ms`.
            model: the bundle that the states must be of, or its `StateLayout`; None = as the states describe themselves, which is
                enough for a ranker that wants embeddings alone.
            model_id: with `model` None: the model to read; None = the one that `<prefix>:active` names at the first read.
            deadline_ms: of a call as a whole: connecting, all of the answer, and once more if the connection was lost; then it
                raises.
            metrics: counters to share with other readers, or to expose in a registry.
            breaker: when calls fail at once since Redis did not answer the last ones; readers of one Redis may share one.
            cache: states that are not asked for again for a moment; None = none.

        Raises:
            ConfigError: a URL that cannot be read, or a `model_id` that is not the model's.
            UnavailableError: a cluster cannot be reached; a single Redis is reached at the first call.
        """
        self._deadline = Deadline(deadline_ms / 1000)
        self._client: Any = connect(client, self._deadline) if isinstance(client, str) else client
        connection.refuse_decoding(self._client)
        self._reading = Reading(names, model, model_id, address(self._client), metrics, breaker, cache)
        self._now_ms = now_ms

    def read(self, users: Sequence[str], max_age_ms: int | None = None, embedding_only: bool = False) -> list[Row]:
        """One row per user, in the order asked for, in one round trip.

        Args:
            users: ids as producers send them; repetitions are read once.
            max_age_ms: rows of older states are STALE, and as usable as before; None = no limit.
            embedding_only: fetch headers and embeddings, a hundredth of the bytes; rows have no `state`.

        Raises:
            UnavailableError: Redis could not be reached, or did not answer within the deadline, or did not so lately and is not
                asked for a moment (ranker/breaker.py). No single row ever raises.
            ConfigError: Redis refuses us, or no model is active.
        """
        reading = self._reading
        try:
            with self._deadline.call():
                if reading.model_id is None:
                    reading.admit()
                    reading.activate(self._client.get(reading.names.active_key))
                question = reading.ask(users, embedding_only)
                reading.admit(asks=bool(question.commands))
                answers = self._round_trip(question.commands)
        except connection.ERRORS as error:
            raise reading.failed(error) from error
        return reading.rows(question, answers, self._now_ms(), max_age_ms)

    def require_active(self) -> None:
        """Check that the model we read is the one that `<prefix>:active` names: a service asks now and then, and reloads.

        Raises:
            ConfigError: another one is active, or none.
            UnavailableError: Redis could not be reached.
        """
        try:
            with self._deadline.call():
                active = self._client.get(self._reading.names.active_key)
        except connection.ERRORS as error:
            raise self._reading.failed(error) from error
        self._reading.require_active(active)

    @property
    def model_id(self) -> str | None:
        """The model that is read; None before the first read of a reader that follows the active key."""
        return self._reading.model_id

    @property
    def metrics(self) -> ReaderMetrics:
        return self._reading.metrics

    def close(self) -> None:
        self._client.close()

    def _round_trip(self, commands: Sequence[Command]) -> list[Any]:
        """An error reply is that command's answer."""
        if not commands:
            return []
        pipe = self._client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        answers: list[Any] = pipe.execute(raise_on_error=False)
        return answers


def connect(url: str, deadline: Deadline) -> RedisClient:
    """A client whose calls end with the deadline.

    Raises:
        ConfigError: the URL cannot be read.
        UnavailableError: a cluster cannot be reached.
    """
    options = connection.options(url, deadline.limit_s)
    try:
        if cluster := connection.cluster(url):
            url, more = cluster
            more |= {
                "retry": Retry(NoBackoff(), connection.RETRIES),
                "connection_pool_class": partial(BoundedPool, deadline),
            }
            with deadline.call():
                return redis.RedisCluster.from_url(url, **more, **options)
        retry = Retry(NoBackoff(), connection.RETRIES, supported_errors=connection.RETRIED)
        return redis.Redis.from_pool(BoundedPool.from_url(url, deadline=deadline, retry=retry, **options))
    except ValueError as error:
        raise ConfigError(f"the Redis URL cannot be read: {error}") from None
    except redis.exceptions.RedisClusterException as error:
        raise UnavailableError(f"Redis Cluster: {error}: is it running, and a cluster?") from None
