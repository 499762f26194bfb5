"""The models that a Redis holds states of: which one rankers read, and the end of one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from encoder.store_redis import RedisClient, reaching
from schemas.names import Names

_SCANNED_AT_ONCE = 500


def publish_active(client: RedisClient, names: Names, model_id: str) -> str:
    """Name this model as the one that rankers read, unless one is named already. Returns the named one.

    Raises:
        UnavailableError: Redis cannot be reached.
    """
    with reaching(client):
        client.set(names.active_key, model_id, nx=True)
        named: Any = client.get(names.active_key)
    return str(named, "ascii", "replace") if named else model_id


def active_model(client: RedisClient, names: Names) -> str | None:
    """The id of the model that rankers read. Raises as `publish_active`."""
    with reaching(client):
        named: Any = client.get(names.active_key)
    return str(named, "ascii", "replace") if named else None


def activate_model(client: RedisClient, names: Names, model_id: str) -> str | None:
    """Name the model that rankers read from now on. Returns the one before. Raises as `publish_active`."""
    with reaching(client):
        former: Any = client.set(names.active_key, model_id, get=True)
    return str(former, "ascii", "replace") if former else None


def delete_states(client: RedisClient, names: Names, model_id: str, progress: Callable[[int], None]) -> int:
    """Delete every state of a model, the markers of its deleted users and its progress marks.

    By SCAN and UNLINK, which let others be served between.

    Args:
        progress: called after each batch with the number deleted so far.

    Returns:
        How many states and markers were deleted. Raises as `publish_active`.
    """
    deleted = 0
    with reaching(client):
        for mark in client.scan_iter(match=names.progress_key_pattern(model_id), count=_SCANNED_AT_ONCE):
            client.unlink(mark)
        keys = client.scan_iter(match=names.state_key_pattern(model_id), count=_SCANNED_AT_ONCE)
        while batch := list(islice(keys, _SCANNED_AT_ONCE)):
            pipe = client.pipeline(transaction=False)
            for key in batch:
                pipe.unlink(key)
            deleted += sum(pipe.execute())
            progress(deleted)
    return deleted
