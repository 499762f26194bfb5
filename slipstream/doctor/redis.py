"""Asks Redis what the checks of a deployment's states need to know. Changes nothing there."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from itertools import islice
from typing import Any

import redis
from redis.exceptions import NoPermissionError, ResponseError

from edge.redis import address
from encoder.models_redis import active_model
from encoder.store_redis import RedisClient, connect, reaching
from schemas.errors import SlipstreamError, StateError
from schemas.names import Names
from schemas.state import StateLayout, decode_header
from slipstream.doctor import judge_redis as judge
from slipstream.doctor.clock import ClockFacts, judge_clock
from slipstream.doctor.finding import Finding, Level, skipped, told

CHECKS = (judge.REACH, judge.MEMORY, judge.PERSISTENCE, judge.CLOCK, judge.ACTIVE, judge.STATES)
_ANSWER_S = 3.0
_SAMPLE = 200
_SCANNED_AT_ONCE = 1000


def redis_findings(url: str, names: Names, state_ttl_s: int, layout: StateLayout | None) -> Iterator[Finding]:
    """A finding for each of CHECKS, in their order.

    Args:
        layout: of the bundle's model; None if there is no bundle that can be read.
    """
    try:
        client = connect(url, _ANSWER_S)
        active = active_model(client, names)  # what every ranker's user may read
    except SlipstreamError as error:
        yield Finding(judge.REACH, Level.FAIL, str(error))
        yield from skipped(CHECKS[1:], "Redis cannot be asked")
        return

    @cache
    def nodes() -> dict[str, judge.Info]:
        return {at: _info(node) for at, node in _nodes(client).items()}

    def asked(check: str, command: str, judged: Callable[[], Finding]) -> Finding:
        def reached() -> Finding:
            with reaching(client):
                try:
                    return judged()
                except NoPermissionError:
                    why = f"this user may not run {command}: not looked at"
                    return Finding(check, Level.WARN, why, f"give it +{command.lower()}, or ask as another user")

        return told(check, reached)

    as_cluster = isinstance(client, redis.RedisCluster)
    yield asked(judge.REACH, "INFO", lambda: judge.judge_reach(nodes(), as_cluster))
    yield asked(judge.MEMORY, "INFO", lambda: judge.judge_memory(nodes(), state_ttl_s))
    yield asked(judge.PERSISTENCE, "INFO", lambda: judge.judge_persistence(nodes()))
    yield asked(judge.CLOCK, "TIME", lambda: judge_clock(judge.CLOCK, "Redis", redis_clock(client)))
    yield judge.judge_active(active, layout.model_id if layout else None)
    if layout is None:
        yield from skipped([judge.STATES], "there is no bundle that says how they should be")
    else:
        yield asked(judge.STATES, "SCAN", lambda: judge.judge_states(sampled(client, names, layout)))


def redis_clock(client: RedisClient) -> ClockFacts:
    """Of a cluster, that of one of its nodes."""
    node = next(iter(_nodes(client).values()))
    node.ping()  # the connection is there
    before_ns = time.time_ns()
    seconds, microseconds = node.time()
    after_ns = time.time_ns()
    ahead_ms = seconds * 1000 + microseconds // 1000 - (before_ns + after_ns) // 2_000_000
    return ClockFacts(ahead_ms, (after_ns - before_ns) // 2_000_000 + 1)


def sampled(client: RedisClient, names: Names, layout: StateLayout) -> judge.StateFacts:
    """Headers of some of the model's states, decoded."""
    found = client.scan_iter(match=names.state_key_pattern(layout.model_id), count=_SCANNED_AT_ONCE)
    keys = list(islice(found, _SAMPLE))
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.getrange(key, 0, layout.header_bytes - 1)
    wrong: Counter[str] = Counter()
    for value in pipe.execute(raise_on_error=False):
        if isinstance(value, NoPermissionError):
            raise value
        if isinstance(value, ResponseError):
            wrong["not a string"] += 1
        elif value:  # it may have expired meanwhile
            try:
                decode_header(value, layout, "a state")
            except StateError as error:
                wrong[str(error)] += 1
    return judge.StateFacts(len(keys), dict(wrong.most_common(3)))


def _nodes(client: RedisClient) -> dict[str, redis.Redis]:
    """A Redis, or a cluster's primaries, by address."""
    if isinstance(client, redis.RedisCluster):
        primaries = client.get_primaries()  # type: ignore[no-untyped-call]
        return {f"{node.host}:{node.port}": client.get_redis_connection(node) for node in primaries}
    return {address(client): client}


def _info(node: redis.Redis) -> judge.Info:
    info: dict[str, Any] = dict(node.info())
    with suppress(ResponseError):  # rarely permitted
        info[judge.SAVE] = node.config_get(judge.SAVE).get(judge.SAVE)
    return info
