"""Does it answer? Real protocol calls to Kafka and Redis."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from schemas.errors import UnavailableError

if TYPE_CHECKING:
    import redis

NO_COORDINATOR_YET = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError._TIMED_OUT,
}
COORDINATOR_TRY_S = 3.0


def kafka_cluster_id(bootstrap: str, timeout_s: float, options: Mapping[str, str] | None = None) -> str:
    """`options`: librdkafka's, for security. Raises UnavailableError if no broker answers within `timeout_s`."""
    try:
        return str(_admin(bootstrap, options).list_topics(timeout=timeout_s).cluster_id)
    except (KafkaException, ValueError) as error:
        reason = error.args[0].str() if isinstance(error, KafkaException) else error
        raise UnavailableError(f"Kafka does not answer at {bootstrap} ({reason}).") from error


def wake_group_coordinator(bootstrap: str, timeout_s: float) -> None:
    """Waits until consumer groups can be joined; a new broker makes its offsets topic at the first such request.

    That takes 0.2 s, but the first consumer that asks for it is told to wait, and waits for 3 s.
    Raises UnavailableError after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        # Each try has a client of its own: on a busy machine one that had asked while the coordinator was still in the making
        # was seen to wait 90 s for its answer.
        admin = _admin(bootstrap, None)
        try:
            [answer] = admin.describe_consumer_groups(["no-such-group"], request_timeout=COORDINATOR_TRY_S).values()
            answer.result(2 * COORDINATOR_TRY_S)
            return
        except (KafkaException, TimeoutError) as error:
            code = error.args[0].code() if isinstance(error, KafkaException) else KafkaError._TIMED_OUT
            if code == KafkaError.GROUP_ID_NOT_FOUND:
                return
            if time.monotonic() >= deadline or code not in NO_COORDINATOR_YET:
                raise UnavailableError(f"Kafka's group coordinator at {bootstrap} is not ready ({error!r}).") from error
        time.sleep(0.02)


def _admin(bootstrap: str, options: Mapping[str, str] | None) -> AdminClient:
    quiet = logging.Logger("slipstream.stack.probe", logging.CRITICAL)  # stderr is told of every refused connection
    config: dict[str, str | int | float | bool] = {
        "socket.timeout.ms": 6000,
        **(options or {}),
        "bootstrap.servers": bootstrap,
    }
    return AdminClient(config, logger=quiet)


def redis_ping(url: str, timeout_s: float) -> None:
    """Raises UnavailableError if Redis does not answer within `timeout_s`, refuses the credentials, or `url` is no Redis URL."""
    _ask_redis(url, timeout_s, lambda client: client.ping())


def redis_process_id(url: str, timeout_s: float) -> int:
    return int(_ask_redis(url, timeout_s, lambda client: client.info("server"))["process_id"])


def _ask_redis(url: str, timeout_s: float, question: Callable[[redis.Redis], Any]) -> Any:
    import redis  # every command imports this module, and most never ask: 0.14 s and 12 MB
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    once = Retry(NoBackoff(), 0)  # by default redis-py tries four times, seconds apart
    try:
        with redis.Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=once
        ) as client:
            return question(client)
    except (redis.RedisError, ValueError, OSError) as error:
        raise UnavailableError(f"Redis does not answer at {masked(url)} ({error}).") from error


def masked(url: str) -> str:
    """The URL without its password."""
    try:
        parts = urlsplit(url)
        if parts.password is None:
            return url
        host = parts.hostname or ""
        where = f"{parts.username or ''}:***@{host}" + (f":{parts.port}" if parts.port else "")
    except ValueError:
        return "the given URL"
    return urlunsplit(parts._replace(netloc=where))
