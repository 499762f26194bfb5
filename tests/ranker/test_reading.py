"""A read without its I/O: which commands are asked, and how answers become rows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis import exceptions

from ranker.metrics import ReaderMetrics
from ranker.reading import Model, Reading
from ranker.rows import Status
from schemas.errors import ConfigError, UnavailableError
from schemas.names import Names
from tests.ranker.states import ARRIVED_MS, LAYOUT, MODEL_ID, made_marker, made_state

WRONG_TYPE = exceptions.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
AWAY = exceptions.ConnectionError("Error 111 connecting to node-3:6379. Connection refused.")


def reading(model: Model | None = LAYOUT, model_id: str | None = None) -> Reading:
    return Reading(Names("p"), model, model_id, "localhost:6379")


def key(user: str) -> bytes:
    return f"p:{MODEL_ID}:{user}".encode()


def statuses(reader: Reading, users: list[str], answers: list[Any], embedding_only: bool = False) -> list[Status]:
    question = reader.ask(users, embedding_only)
    assert len(question.commands) == len(answers)
    return [row.status for row in reader.rows(question, answers, ARRIVED_MS, None)]


def test_whole_states_are_got_and_embeddings_cut_out() -> None:
    assert reading().ask(["a", "b"], False).commands == [("GET", key("a")), ("GET", key("b"))]
    assert reading().ask(["a"], True).commands == [("GETRANGE", key("a"), 0, LAYOUT.header_bytes - 1)]


def test_a_user_is_asked_for_once_and_answered_as_often_as_wanted() -> None:
    reader = reading()
    question = reader.ask(["b", "a", "b"], False)
    assert question.commands == [("GET", key("b")), ("GET", key("a"))]
    rows = reader.rows(question, [made_state(1, length=2), None], ARRIVED_MS, None)
    assert [(row.user, row.length) for row in rows] == [("b", 2), ("a", 0), ("b", 2)]


def test_every_kind_of_answer_is_a_row() -> None:
    damaged = made_state(2)[:100]
    answers = [made_state(1), None, WRONG_TYPE, damaged, b"", made_marker(), AWAY]
    assert statuses(reading(), list("abcdefg"), answers) == [
        Status.PRESENT,
        Status.NOT_FOUND,
        Status.INVALID,
        Status.INVALID,
        Status.NOT_FOUND,
        Status.NOT_FOUND,
        Status.INVALID,
    ]


@pytest.mark.parametrize("user", ["", "x" * 257, "\ud800"])
def test_what_cannot_be_a_user_id_is_an_invalid_row_and_not_asked_for(user: str) -> None:
    assert statuses(reading(), ["a", user], [None]) == [Status.NOT_FOUND, Status.INVALID]


def test_nobody_is_nobody() -> None:
    assert statuses(reading(), [], []) == []


def test_errors_in_every_answer_are_the_calls_error() -> None:
    with pytest.raises(UnavailableError, match="localhost:6379"):
        statuses(reading(), ["a", "b"], [AWAY, AWAY])
    with pytest.raises(ConfigError, match="refuses us"):
        statuses(reading(), ["a"], [exceptions.NoPermissionError("this user has no permissions")])


def test_wrong_types_in_every_answer_are_rows() -> None:
    assert statuses(reading(), ["a", "b"], [WRONG_TYPE, WRONG_TYPE]) == [Status.INVALID] * 2


def test_rows_and_failures_are_counted() -> None:
    reader = reading()
    statuses(reader, ["a", "b", "c"], [made_state(1), None, None])
    statuses(reader, ["a"], [b"junk"])
    assert reader.metrics.rows == {Status.PRESENT: 1, Status.NOT_FOUND: 2, Status.INVALID: 1}
    reader.failed(exceptions.TimeoutError("Timeout reading from socket"))
    reader.failed(ConnectionResetError("reset"))
    assert reader.metrics.failures == {"deadline": 1, "unavailable": 1}


def test_counters_are_exposed_in_a_registry_if_there_is_one() -> None:
    registry = CollectorRegistry()
    reader = Reading(Names("p"), LAYOUT, None, "localhost:6379", ReaderMetrics(registry))
    statuses(reader, ["a", "b"], [made_state(1), b"junk"])
    reader.failed(exceptions.TimeoutError("Timeout reading from socket"))
    sample = registry.get_sample_value
    assert sample("slipstream_ranker_rows_total", {"status": "present"}) == 1
    assert sample("slipstream_ranker_rows_total", {"status": "invalid"}) == 1
    assert sample("slipstream_ranker_rows_total", {"status": "stale"}) == 0, "a series is there before its first row"
    assert sample("slipstream_ranker_read_failures_total", {"reason": "deadline"}) == 1
    assert sample("slipstream_ranker_read_seconds_count") == 1


# Without a bundle: states describe themselves


def test_the_layout_is_learned_from_the_first_good_state() -> None:
    reader = reading(None, MODEL_ID)
    assert reader.ask(["a"], True).commands == [("GET", key("a"))], "without the layout the embedding's end is unknown"
    answers = [made_marker(), made_state(1)[:50], made_state(2)]
    assert statuses(reader, ["a", "b", "c"], answers) == [Status.NOT_FOUND, Status.INVALID, Status.PRESENT]
    assert reader.ask(["a"], True).commands == [("GETRANGE", key("a"), 0, LAYOUT.header_bytes - 1)]


def test_a_state_of_another_model_teaches_nothing() -> None:
    reader = reading(None, "ff" * 8)
    assert statuses(reader, ["a", "b"], [made_state(1), made_marker()]) == [Status.INVALID, Status.NOT_FOUND]
    assert reader.layout is None


def test_a_bundle_is_a_model_too() -> None:
    bundle: Any = SimpleNamespace(manifest=SimpleNamespace(shape=LAYOUT.shape, model_id=MODEL_ID))
    assert reading(bundle).layout == LAYOUT


# Which model


def test_the_active_model_is_taken_from_its_key() -> None:
    reader = reading(None)
    reader.activate(MODEL_ID.encode())
    assert reader.ask(["a"], False).commands == [("GET", key("a"))]


@pytest.mark.parametrize(
    ("active", "says"),
    [(None, "has no key p:active"), (b"", "no model id"), (b"latest", "'latest'"), (b"\xff" * 16, "no model id"),
     (MODEL_ID.upper().encode(), "no model id")],
)  # fmt: skip
def test_an_active_key_without_a_model_id_says_so(active: bytes | None, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        reading(None).activate(active)


def test_models_that_disagree_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model ffffffffffffffff with the bundle of 00112233445566ff"):
        reading(LAYOUT, "ff" * 8)
    with pytest.raises(ConfigError, match="argument `model_id` is 'nano'"):
        reading(None, "nano")
    with pytest.raises(ConfigError, match="p:active names model ffffffffffffffff, this ranker reads 00112233445566ff"):
        reading().require_active(b"ff" * 8)
    reading().require_active(MODEL_ID.encode())
