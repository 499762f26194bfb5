"""A figure of a run that computed something else is worth nothing: states are compared with a fresh encoding."""

from __future__ import annotations

from collections.abc import Mapping

from encoder.bundle import Bundle
from encoder.oracle import Claim, check_states
from encoder.runtime import Runtime, RuntimeConfig
from encoder.store_redis import RedisStateStore, connect
from schemas.errors import MismatchError
from schemas.names import Names
from schemas.sequence import Records


def require_right(redis_url: str, names: Names, bundle: Bundle, histories: Mapping[bytes, Records]) -> None:
    """Whether the states of these users are those of their sequences.

    Raises:
        MismatchError: one is not.
    """
    with connect(redis_url) as client:
        stored = RedisStateStore(client, names, bundle.layout).load(list(histories))
    claims = [Claim(user, history, state) for (user, history), state in zip(histories.items(), stored, strict=True)]
    runtime = Runtime(bundle, RuntimeConfig(graphs=("encode", "append")))
    wrong = check_states(runtime, bundle.features, bundle.layout, claims)
    if wrong:
        raise MismatchError(f"{len(wrong)} of {len(claims)} states are wrong: {wrong[0].user!r}: {wrong[0].what}")
