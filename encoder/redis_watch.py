"""Asks Redis once in a while whether it takes this user's commands: for the readiness of an encoder that has nothing to write.

And keeps the name of the active model, which rankers need before any state: a Redis that lost it is told again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from encoder.models_redis import active_model, publish_active
from encoder.store_redis import RedisClient, connect
from schemas.errors import SlipstreamError
from schemas.names import Names

_log = logging.getLogger(__name__)

INTERVAL_S = 2.0
ANSWER_S = 2.0


class RedisWatch:
    """A thread with a connection of its own.

    Args:
        on_change: told why Redis cannot be used, None when it can. Called from the thread.
        restore_active: name the model again that was active last, if none is any more.
    """

    def __init__(
        self, redis_url: str, names: Names, on_change: Callable[[str | None], None], restore_active: bool = True
    ) -> None:
        self._redis_url = redis_url
        self._names = names
        self._on_change = on_change
        self._restore_active = restore_active
        self._active: str | None = None
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
                self.look(client)
            except SlipstreamError as error:
                self._on_change(str(error))
            else:
                self._on_change(None)

    def look(self, client: RedisClient) -> None:
        """Once. A user with few rights may read what is read here, and may not be allowed to ping.

        Raises:
            SlipstreamError: Redis cannot be used.
        """
        active = active_model(client, self._names)
        if active is None and self._active is not None and self._restore_active:
            active = publish_active(client, self._names, self._active)
            _log.warning("Redis lost the name of the active model: rankers read %s again", active)
        self._active = active or self._active
