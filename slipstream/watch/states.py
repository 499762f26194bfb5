"""What Redis tells a watcher: the model that rankers read, headers of states, a user's row. By GET and GETRANGE alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from edge.redis import address
from encoder.bundle import Bundle
from ranker import connection
from ranker.bounded import Deadline
from ranker.reader import RedisClient, StateReader, connect, wall_clock_ms
from ranker.rows import Row
from schemas.errors import ConfigError, StateError
from schemas.names import Names
from schemas.state import FIXED_BYTES, Header, decode_header

#: Redis is asked again soon: a look that takes longer is given up.
DEADLINE_MS = 2000
#: A header with an embedding of this width is read whole without knowing the model.
_WIDEST = 4096


class States:
    """States of the active model. Threads may share it."""

    def __init__(self, url: str, names: Names, bundle: Bundle | None, stale_after_ms: int | None = None) -> None:
        """
        Args:
            stale_after_ms: an older state is STALE; None: none is.
            bundle: verifies the states of its own model to the byte; those of another are read as they describe themselves.
        """
        self._url, self._names, self._bundle = url, names, bundle
        self._stale_after_ms = stale_after_ms
        self._deadline = Deadline(DEADLINE_MS / 1000)
        self._lock = threading.Lock()
        self._client: RedisClient | None = None
        self._reader: StateReader | None = None
        self.active: str | None = None

    @property
    def bundle(self) -> Bundle | None:
        """The bundle, if it is the active model's."""
        return self._bundle if self._bundle is not None and self._bundle.model_id == self.active else None

    def refresh_active(self) -> None:
        """Look which model rankers read.

        Raises:
            UnavailableError, ConfigError: Redis does not answer, or refuses.
        """
        (answer,) = self._ask([("GET", self._names.active_key)])
        named = answer.decode(errors="replace") if isinstance(answer, bytes) else None
        with self._lock:
            if named != self.active:
                self.active, self._reader = named, None

    def headers(self, users: Sequence[bytes]) -> dict[bytes, Header | None]:
        """Of each user's state now; None: there is none that can be read.

        Raises:
            UnavailableError, ConfigError: Redis does not answer, or refuses.
        """
        model_id = self.active
        if model_id is None or not users:
            return {}
        width = FIXED_BYTES + 2 * (self.bundle.shape.d_model if self.bundle else _WIDEST)
        keys = [self._names.state_key(model_id, user) for user in users]
        answers = self._ask([("GETRANGE", key, 0, width - 1) for key in keys])
        return {user: _header(answer) for user, answer in zip(users, answers, strict=True)}

    def row(self, user: str) -> Row:
        """The user's state, verified.

        Raises:
            UnavailableError, ConfigError: Redis does not answer, or refuses, or no model is active.
        """
        if self.active is None:
            self.refresh_active()
        with self._lock:
            if self.active is None:
                raise ConfigError(
                    f"no model is active: Redis has no key {self._names.active_key}; an encoder sets it when it first starts"
                )
            if self._reader is None:
                model = self.bundle
                model_id = None if model else self.active
                self._reader = StateReader(self._url, model, self._names, model_id, deadline_ms=DEADLINE_MS)
            reader = self._reader
        (row,) = reader.read([user], self._stale_after_ms)
        return row

    def is_stale(self, header: Header) -> bool:
        """As a row of this state would be now."""
        return self._stale_after_ms is not None and wall_clock_ms() - header.arrived_ms > self._stale_after_ms

    def _ask(self, commands: Sequence[tuple[str | bytes | int, ...]]) -> list[Any]:
        try:
            with self._lock:
                client = self._client = self._client or connect(self._url, self._deadline)
            with self._deadline.call():
                pipe = client.pipeline(transaction=False)
                for command in commands:
                    pipe.execute_command(*command)
                answers: list[Any] = pipe.execute(raise_on_error=False)
        except connection.ERRORS as error:
            raise connection.translated(error, address(self._client)) from None
        for answer in answers:
            # A key of another type is that user's trouble; any other refusal is everybody's.
            if isinstance(answer, Exception) and not str(answer).startswith("WRONGTYPE"):
                raise connection.translated(answer, address(self._client)) from None
        return answers


def _header(answer: object) -> Header | None:
    if not isinstance(answer, bytes) or not answer:
        return None
    try:
        return decode_header(answer, None)
    except StateError:
        return None
