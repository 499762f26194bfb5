"""How a ranker is connected to Redis: fail fast, never slower than the deadline, and say so in our words."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis import exceptions
from redis.cluster import LoadBalancingStrategy

from schemas.errors import ConfigError, SlipstreamError, UnavailableError

DEFAULT_DEADLINE_MS = 100
#: redis-py reads a reply in pieces of this size, which stay in the processor's cache on their way: 50 states of 71 KiB take
#: 1.9 ms of CPU time in pieces of 128 KiB, 2.7 ms in pieces of 4 MiB.
_READ_BYTES = 128 << 10


def options(url: str, limit_s: float) -> dict[str, Any]:
    """Options of a client, sync or asyncio, but for `retry`, which each of them has a class of its own for.

    The deadline is the limit of every wait on the socket; that of a whole call is ranker/bounded.py's, or asyncio.timeout's.
    """
    if limit_s < 0.001:
        raise ConfigError(f"a deadline of {1000 * limit_s:g} ms: it must be at least 1")
    return {
        "socket_timeout": limit_s,
        "socket_connect_timeout": limit_s,
        "socket_read_size": _READ_BYTES,
        "decode_responses": False,
        # A Unix socket's connection takes no such option.
        **({} if url.startswith("unix:") else {"socket_keepalive": True}),
    }


def cluster(url: str) -> tuple[str, dict[str, Any]] | None:
    """What redis-py makes a cluster's client of: a URL that it can read, and options. None for a URL of a single Redis.

    Args:
        url: `redis+cluster://` or `rediss+cluster://`; `?read_from_replicas=yes` asks replicas in turn with their primary.
    """
    scheme, is_cluster, rest = url.partition("+cluster://")
    if not is_cluster:
        return None
    parts = urlsplit(f"{scheme}://{rest}")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    replicas = query.pop("read_from_replicas", "no").lower()
    if replicas not in ("yes", "no"):
        raise ConfigError(f"the Redis URL cannot be read: read_from_replicas={replicas}: yes or no")
    strategy = LoadBalancingStrategy.ROUND_ROBIN if replicas == "yes" else None
    return urlunsplit(parts._replace(query=urlencode(query))), {"load_balancing_strategy": strategy}


_REFUSED = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)

#: A connection that Redis closed meanwhile (it was restarted) is made anew and asked once more; a timeout is final.
RETRIES = 1
RETRIED = (exceptions.ConnectionError,)


def refuse_decoding(client: Any) -> None:
    """A client that decodes replies as text cannot read states.

    Raises:
        ConfigError: it does.
    """
    if client.get_encoder().decode_responses:
        raise ConfigError(
            "the Redis client decodes responses as text, but states are bytes: make it with decode_responses=False"
        )


#: What a call of redis-py raises; a cluster's own errors have another root.
ERRORS = (exceptions.RedisError, exceptions.RedisClusterException, OSError)
#: Over the deadline, by redis-py's word or by asyncio.timeout's.
LATE = (exceptions.TimeoutError, TimeoutError)


def translated(error: Exception, where: str) -> SlipstreamError:
    """An error of redis-py, or of the socket below it, as ours."""
    if isinstance(error, _REFUSED):
        return ConfigError(f"Redis at {where} refuses us: {error}: correct the user and password in the URL")
    if isinstance(error, LATE):
        return UnavailableError(
            f"Redis at {where} did not answer within the deadline: rank without states, or allow more time"
        )
    return UnavailableError(f"Redis at {where}: {error}: is it running?")
