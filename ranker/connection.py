"""How a ranker is connected to Redis: fail fast, never twice as slow as the deadline, and say so in our words."""

from __future__ import annotations

from typing import Any

from redis import exceptions

from schemas.errors import ConfigError, SlipstreamError, UnavailableError

DEFAULT_DEADLINE_MS = 100
#: redis-py reads a reply in pieces of this size. 50 states of 68 KiB, p50: 4.0 ms at its default of 64 KiB, 2.35 ms at 4 MiB.
_READ_BYTES = 4 << 20


def options(deadline_ms: int) -> dict[str, Any]:
    """Options of a client, sync or asyncio, but for `retry`, which each of them has a class of its own for.

    A call must not wait longer than the ranker can: the deadline is the limit of every wait on the socket.
    """
    if deadline_ms < 1:
        raise ConfigError(f"a deadline of {deadline_ms} ms: it must be at least 1")
    return {
        "socket_timeout": deadline_ms / 1000,
        "socket_connect_timeout": deadline_ms / 1000,
        "socket_keepalive": True,
        "socket_read_size": _READ_BYTES,
        "decode_responses": False,
    }


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


def translated(error: exceptions.RedisError | OSError, where: str) -> SlipstreamError:
    """An error of redis-py, or of the socket below it, as ours."""
    if isinstance(error, _REFUSED):
        return ConfigError(f"Redis at {where} refuses us: {error}: correct the user and password in the URL")
    if isinstance(error, exceptions.TimeoutError):
        return UnavailableError(
            f"Redis at {where} did not answer within the deadline: rank without states, or allow more time"
        )
    return UnavailableError(f"Redis at {where}: {error}: is it running?")
