"""Asks Redis once in a while whether it takes this user's commands: for the readiness of an encoder that has nothing to write."""

from __future__ import annotations

import threading
from collections.abc import Callable

from encoder.models_redis import active_model
from encoder.store_redis import connect
from schemas.errors import SlipstreamError
from schemas.names import Names

INTERVAL_S = 2.0
ANSWER_S = 2.0


class RedisWatch:
    """A thread with a connection of its own.

    Args:
        on_change: told why Redis cannot be used, None when it can. Called from the thread.
    """

    def __init__(self, redis_url: str, names: Names, on_change: Callable[[str | None], None]) -> None:
        self._redis_url = redis_url
        self._names = names
        self._on_change = on_change
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="redis-watch", daemon=True)

    def __enter__(self) -> RedisWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(2 * ANSWER_S)

    def _run(self) -> None:
        client = None
        while not self._stop.wait(INTERVAL_S):
            try:
                client = client or connect(self._redis_url, ANSWER_S)
                active_model(
                    client, self._names
                )  # a user with few rights may read this, and may not be allowed to ping
            except SlipstreamError as error:
                self._on_change(str(error))
            else:
                self._on_change(None)
