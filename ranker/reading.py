"""One read without its I/O: users -> Redis commands, and Redis's answers -> rows. Both readers are this and a round trip.

Which commands, measured on two cores with redis-py 8.1 and hiredis, p50: 50 values of 68 KiB come in 2.35 ms by pipelined GETs
and in 2.35 ms by one MGET; 50 embeddings by pipelined GETRANGEs in 0.30 ms (MGET cannot cut). A pipeline of single-key commands
tells a key of the wrong type from a missing one, and works on Redis Cluster as it is; so it is a pipeline always.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from redis.exceptions import RedisError, ResponseError

from ranker.breaker import Breaker
from ranker.cache import Decoded, StateCache
from ranker.connection import translated
from ranker.memory import keep_freed_memory
from ranker.metrics import ReaderMetrics
from ranker.rows import Row, Status, read_rows, usable_row
from schemas.bundle import MODEL_ID_CHARS, Manifest
from schemas.errors import ConfigError, SlipstreamError, StateError, UnavailableError
from schemas.event import MAX_USER_BYTES
from schemas.names import Names
from schemas.state import Kind, StateLayout, decode_header, read_layout

Command = tuple[str | bytes | int, ...]
_MODEL_ID = re.compile(f"[0-9a-f]{{{MODEL_ID_CHARS}}}")


class HasManifest(Protocol):
    """A bundle (encoder.bundle.Bundle), as far as a reader needs it."""

    @property
    def manifest(self) -> Manifest: ...


#: What says of which model states must be.
Model = StateLayout | HasManifest


def layout_of(model: Model) -> StateLayout:
    if isinstance(model, StateLayout):
        return model
    return StateLayout(model.manifest.shape, model.manifest.model_id)


class Question(NamedTuple):
    """What one call asks of Redis.

    Attributes:
        users: as the caller passed them, duplicates and all.
        keys: user -> key, distinct users only; None for what cannot be a user id.
        cached: by key, what need not be asked for.
        commands: one for each other key that is not None, in the order of `keys`.
        started_s: monotonic.
    """

    users: Sequence[str]
    keys: dict[str, bytes | None]
    cached: dict[bytes, Decoded]
    commands: list[Command]
    embedding_only: bool
    started_s: float


class Reading:
    """The names, the model and the counters of a reader. No I/O.

    Attributes:
        layout: the model's layout. A reader that was made without one learns it from the first state that it sees: a state
            describes itself.
    """

    def __init__(
        self,
        names: Names | None,
        model: Model | None,
        model_id: str | None,
        address: str,
        metrics: ReaderMetrics | None = None,
        breaker: Breaker | None = None,
        cache: StateCache | None = None,
    ) -> None:
        """The arguments are `StateReader`'s; `address` is for messages."""
        keep_freed_memory()
        layout = None if model is None else layout_of(model)
        if layout is not None and model_id is not None and layout.model_id != model_id:
            raise ConfigError(
                f"asked for states of model {model_id} with the bundle of {layout.model_id}: pass the bundle of {model_id}"
            )
        self.names = names or Names()
        self.layout = layout
        self.model_id = model_id and _checked_model_id(model_id, "argument `model_id`")
        if layout is not None:
            self.model_id = layout.model_id
        self.address = address
        self.metrics = metrics or ReaderMetrics()
        self._breaker = breaker or Breaker()
        self._cache = cache

    def admit(self, asks: bool = True) -> None:
        """Call before asking Redis, if anything has to be asked for.

        Raises:
            UnavailableError: it did not answer lately, and is not asked now.
        """
        if asks and not self._breaker.admits():
            self.metrics.refuse()
            raise UnavailableError(
                f"Redis at {self.address} did not answer the last calls and is not asked for a moment: rank without states"
            )

    def activate(self, active: object) -> str:
        """Take the answer of `GET <prefix>:active` for the model to read."""
        self._breaker.answered()
        self.model_id = self.checked_active(active)
        return self.model_id

    def checked_active(self, active: object) -> str:
        """The model id that the active key holds.

        Raises:
            ConfigError: it holds none.
        """
        key = self.names.active_key
        if active is None:
            raise ConfigError(
                f"Redis at {self.address} has no key {key}: no encoder has run yet for this prefix; start one, or name the model"
            )
        text = active.decode(errors="replace") if isinstance(active, bytes) else str(active)
        return _checked_model_id(text, f"Redis at {self.address}: {key}")

    def require_active(self, active: object) -> None:
        """Refuse to go on with another model than the active one.

        Raises:
            ConfigError: names both.
        """
        named = self.checked_active(active)
        if self.model_id is not None and named != self.model_id:
            raise ConfigError(
                f"{self.names.active_key} names model {named}, this ranker reads {self.model_id}: load the bundle of {named}"
            )

    def ask(self, users: Sequence[str], embedding_only: bool) -> Question:
        assert self.model_id is not None, "the model is resolved before the first read"
        keys = {user: self._key(user, self.model_id) for user in dict.fromkeys(users)}
        cached = self._cached(keys, embedding_only)
        asked = [key for key in keys.values() if key is not None and key not in cached]
        commands: list[Command] = [("GET", key) for key in asked]
        if embedding_only and self.layout is not None:
            commands = [("GETRANGE", key, 0, self.layout.header_bytes - 1) for key in asked]
        return Question(users, keys, cached, commands, embedding_only, time.monotonic())

    def rows(self, question: Question, answers: Sequence[Any], now_ms: int, max_age_ms: int | None) -> list[Row]:
        """One row for each user that was asked for, in that order.

        Raises:
            UnavailableError, ConfigError: no user at all got an answer.
        """
        self._raise_if_all_failed(question, answers)
        if answers:
            self._breaker.answered()
        self._learn(answers)
        by_user: dict[str, Row] = {}
        values: dict[str, tuple[bytes, bytes]] = {}
        remaining = iter(answers)
        for user, key in question.keys.items():
            if key is None:
                why = f"a user id has 1 to {MAX_USER_BYTES} bytes of UTF-8: no state can have this one"
                by_user[user] = Row(user, Status.INVALID, why=why)
            elif key in question.cached:
                by_user[user] = usable_row(user, question.cached[key], now_ms, max_age_ms, key)
            elif (answer := next(remaining)) and self.layout is not None and isinstance(answer, bytes):
                values[user] = key, answer
            else:
                by_user[user] = self._row_of_no_value(user, key, answer)
        if values and self.layout is not None:
            keys, found = zip(*values.values(), strict=True)
            keep = None if self._cache is None else self._cache.put
            read = read_rows(list(values), keys, found, self.layout, now_ms, max_age_ms, question.embedding_only, keep)
            by_user |= zip(values, read, strict=True)
        rows = [by_user[user] for user in question.users]
        self.metrics.count(rows, len(question.cached), time.monotonic() - question.started_s)
        return rows

    def _row_of_no_value(self, user: str, key: bytes, answer: Any) -> Row:
        """Of an answer that is none, or an error, or a value before anything in a call has described the model."""
        if answer is None or answer == b"":  # GETRANGE answers a missing key with an empty string
            return Row(user, Status.NOT_FOUND, why="no state")
        where = key.decode(errors="replace")
        if isinstance(answer, Exception):
            return Row(user, Status.INVALID, why=f"{where}: Redis answers: {answer}")
        try:
            header = decode_header(answer, None, where)
        except StateError as error:
            return Row(user, Status.INVALID, why=str(error))
        if header.kind is Kind.DELETED:
            return Row(user, Status.NOT_FOUND, why=f"{where}: the user was forgotten")
        return Row(user, Status.INVALID, why=f"{where}: made by model {header.model_id}, not {self.model_id}")

    def _cached(self, keys: dict[str, bytes | None], embedding_only: bool) -> dict[bytes, Decoded]:
        if self._cache is None:
            return {}
        found = {key: self._cache.get(key, embedding_only) for key in keys.values() if key is not None}
        return {key: kept for key, kept in found.items() if kept is not None}

    def _key(self, user: str, model_id: str) -> bytes | None:
        try:
            encoded = user.encode()
        except UnicodeEncodeError:
            return None
        return self.names.state_key(model_id, encoded) if 0 < len(encoded) <= MAX_USER_BYTES else None

    def _learn(self, answers: Sequence[Any]) -> None:
        if self.layout is not None:
            return
        for answer in answers:
            if not isinstance(answer, bytes):
                continue
            try:
                layout = read_layout(answer)
            except StateError:
                continue
            if layout.model_id == self.model_id:
                self.layout = layout
                return

    def _raise_if_all_failed(self, question: Question, answers: Sequence[Any]) -> None:
        """An error in some answers is those rows' trouble (a node of a cluster is away); in all of them it is the call's."""
        errors = [answer for answer in answers if isinstance(answer, RedisError) and not _is_the_rows_own(answer)]
        if errors and len(errors) == len(answers):
            raise self.failed(errors[0])

    def failed(self, error: Exception) -> SlipstreamError:
        """The error of a call as a whole, counted. Only silence opens the circuit, not a Redis that refuses us."""
        self.metrics.fail(error)
        found = translated(error, self.address)
        if isinstance(found, UnavailableError):
            self._breaker.failed()
        else:
            self._breaker.answered()
        return found


def _checked_model_id(text: str, where: str) -> str:
    if not _MODEL_ID.fullmatch(text):
        raise ConfigError(f"{where} is {text[:40]!r}, which is no model id: those have {MODEL_ID_CHARS} of 0-9, a-f")
    return text


def _is_the_rows_own(error: RedisError) -> bool:
    return isinstance(error, ResponseError) and str(error).startswith("WRONGTYPE")
