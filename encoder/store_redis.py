"""States in Redis: many users in one round trip, each by commands of a single key, so that Redis Cluster works as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha1
from typing import Any

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry

from edge.redis import address
from encoder.store import Invalid, Loaded, Outcome, Write, base_revision, read_value
from encoder.store_script import WRITE
from schemas.errors import ConfigError, SlipstreamError, UnavailableError
from schemas.names import Names
from schemas.state import Kind, StateLayout, encode_header

RedisClient = redis.Redis | redis.RedisCluster

DEFAULT_DELETED_TTL_S = 86_400
_OUTCOMES = tuple(Outcome)  # by what the script answers
_SHA = sha1(WRITE.encode(), usedforsecurity=False).hexdigest()
#: Errors that a later call may not meet: memory, fail-over, loading, a cluster. A command's own have a class, without the word;
#: a script's error has its cause inside.
_PASSING_CLASSES = (OutOfMemoryError, ReadOnlyError, MasterDownError, ClusterDownError, TryAgainError)
_PASSING = re.compile(r"(^|-)(OOM|READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY|NOREPLICAS|MISCONF)\b")
#: TLS that fails for its certificates, ours or theirs. Trying again is of no use.
_DISTRUST = re.compile(r"certificate verify failed|alert (bad |unknown )?(certificate|ca)\b", re.IGNORECASE)


def connect(url: str, timeout_s: float = 5.0, retries: int = 3) -> RedisClient:
    """A client that answers bytes, has a time limit on everything, and retries what is safe to repeat (all we send is).

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`; `redis+cluster://` and `rediss+cluster://` for Redis Cluster.
        timeout_s, retries: of each command; a cluster's client has its own retries.

    Raises:
        ConfigError: the URL cannot be read.
        UnavailableError: a cluster cannot be reached; a single Redis is reached at the first command.
    """
    scheme, cluster, rest = url.partition("+cluster://")
    try:
        if cluster:
            return redis.RedisCluster.from_url(
                f"{scheme}://{rest}", socket_timeout=timeout_s, socket_connect_timeout=timeout_s
            )
        return redis.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            socket_keepalive=True,
            # Replies are read in pieces of this size: 50 states of 68 KiB in 2.35 ms (p50), in 4.0 ms at the default of 64 KiB.
            socket_read_size=4 << 20,
            health_check_interval=30,
            retry=Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.5), retries),
        )
    except ValueError as error:
        raise ConfigError(f"the Redis URL cannot be read: {error} (setting `redis_url`)") from None
    except RedisClusterException as error:
        raise UnavailableError(f"Redis Cluster: {error}: is it running, and a cluster? (setting `redis_url`)") from None


class RedisStateStore:
    """A `StateStore` (encoder/store.py) on Redis 6.2 or later, or what speaks its protocol and runs its scripts."""

    def __init__(
        self,
        client: RedisClient,
        names: Names,
        layout: StateLayout,
        ttl_s: int = 0,
        deleted_ttl_s: int = DEFAULT_DELETED_TTL_S,
    ) -> None:
        """
        Args:
            client: answers bytes; standalone or cluster. See `connect`.
            ttl_s: states that are not written for so long expire; 0 = never.
            deleted_ttl_s: how long the marker of a delete lasts; longer than a writer may be paused.
        """
        self.layout = layout
        self._client = client
        self._names = names
        self._ttl_ms = ttl_s * 1000
        self._deleted_ttl_ms = deleted_ttl_s * 1000

    def load(self, users: Sequence[bytes]) -> list[Loaded]:
        keys = [self._key(user) for user in users]
        with reaching(self._client):
            values = self._pipelined([("GET", key) for key in keys])
        return [self._read(value) for value in values]

    def apply(self, writes: Sequence[Write]) -> list[Outcome]:
        commands = [self._command(write) for write in writes]
        with reaching(self._client):
            replies = self._pipelined(commands)
            missing = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if missing:  # a new Redis, a fail-over, SCRIPT FLUSH
                # EVAL carries the script and leaves it in the cache of the node that has the key.
                for i in missing:
                    commands[i] = ("EVAL", WRITE, *commands[i][2:])
                for i, reply in zip(missing, self._pipelined([commands[i] for i in missing]), strict=True):
                    replies[i] = reply
        for reply in replies:
            if isinstance(reply, RedisError):
                raise self._error(reply)
        return [_OUTCOMES[reply] for reply in replies]

    def _key(self, user: bytes) -> bytes:
        return self._names.state_key(self.layout.model_id, user)

    def _read(self, value: Any) -> Loaded:
        if value is None:
            return None
        where = f"state of model {self.layout.model_id}"  # not the key: it names the user, and this is logged
        if isinstance(value, ResponseError) and str(value).startswith("WRONGTYPE"):
            return Invalid(b"", f"{where}: not a string: {value}")
        if isinstance(value, RedisError):
            raise self._error(value)
        return read_value(value, self.layout, where)

    def _command(self, write: Write) -> tuple[Any, ...]:
        layout, header = self.layout, write.header
        heals = isinstance(write.base, Invalid)
        assert not (heals and write.kept), "nothing of a damaged value stays"
        encoded = encode_header(header, layout)
        deleted = header.kind is Kind.DELETED
        return (
            "EVALSHA",
            _SHA,
            1,
            self._key(write.user),
            base_revision(write.base),
            b"1" if heals else b"0",
            encoded,
            layout.value_bytes(write.kept) if write.kept else 0,
            write.slots.tobytes(),
            len(encoded) if deleted else layout.value_bytes(header.capacity),
            self._deleted_ttl_ms if deleted else self._ttl_ms,
        )

    def _pipelined(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """One round trip; a command's error is its reply."""
        pipe = self._client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        replies: list[Any] = pipe.execute(raise_on_error=False)
        return replies

    def _error(self, error: RedisError) -> SlipstreamError:
        return _translated(error, self._client)


@contextmanager
def reaching(client: RedisClient) -> Iterator[None]:
    try:
        yield
    except (RedisError, RedisClusterException) as error:
        raise _translated(error, client) from error


def _translated(error: RedisError | RedisClusterException, client: RedisClient) -> SlipstreamError:
    """Redis's errors as ours; nothing in a message can hold a password."""
    where = address(client)
    if isinstance(error, (AuthenticationError, AuthorizationError, NoPermissionError)):
        return ConfigError(f"Redis at {where} refuses us: {error}: correct the user and password in `redis_url`")
    if _DISTRUST.search(str(error)):
        return ConfigError(
            f"Redis at {where}: {error}: correct `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` in `redis_url`"
        )
    if isinstance(error, MovedError):
        return ConfigError(f"Redis at {where} is a cluster: write the `redis_url` as redis+cluster://...")
    if isinstance(error, ResponseError) and not (isinstance(error, _PASSING_CLASSES) or _PASSING.search(str(error))):
        return ConfigError(f"Redis at {where} does not understand us: {error}: Redis 6.2 or later is needed")
    full = isinstance(error, OutOfMemoryError) or "OOM" in str(error)
    advice = "raise its maxmemory, or let states expire (`state_ttl_s`)" if full else "is it running?"
    return UnavailableError(f"Redis at {where}: {str(error).rstrip('.')}; {advice}")
