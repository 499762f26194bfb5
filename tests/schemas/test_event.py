"""The parser of raw events: what it accepts, and each way in which a message can be bad, with its reason."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.errors import EventError
from schemas.event import (
    DEFAULT_MAX_FUTURE_MS,
    MAX_ITEM_BYTES,
    MAX_ITEM_ID,
    MAX_MESSAGE_BYTES,
    MAX_TIMESTAMP_MS,
    MAX_USER_BYTES,
    Event,
    Forget,
    Parser,
    ParserConfig,
    encode_engagement,
    encode_forget,
    hash_item_id,
)
from schemas.formats import MAX_DEPTH
from schemas.vocabulary import Vocabulary

NOW_MS = 1767225600000
GOOD = {"user_id": "u-17", "item_id": 4711, "action": "save", "surface": "home", "timestamp_ms": NOW_MS - 1000}
FORGET = {"forget_user": "u-17", "timestamp_ms": NOW_MS - 1000}
DEEP = b"[" * 5000 + b"]" * 5000


def nested(depth: int) -> bytes:
    """JSON with so many arrays and objects inside each other."""
    return b'{"x": [' * (depth // 2) + b"[" * (depth % 2) + b"]" * (depth % 2) + b"]}" * (depth // 2)


def message(**changes: object) -> bytes:
    """A good event with fields changed; `...` removes one."""
    fields = {name: value for name, value in {**GOOD, **changes}.items() if value is not ...}
    return json.dumps(fields).encode()


def forget(**changes: object) -> bytes:
    return json.dumps({**FORGET, **changes}).encode()


def raw(field: str, literal: bytes) -> bytes:
    """A good event with a field's JSON written as it stands."""
    return message(**{field: "@"}).replace(b'"@"', literal)


def parse(value: bytes | None, **config: object) -> Event | Forget:
    return Parser(ParserConfig(**config)).parse(value, NOW_MS)  # type: ignore[arg-type]


def reason(value: bytes | None, **config: object) -> tuple[str, str]:
    with pytest.raises(EventError) as caught:
        parse(value, **config)
    return caught.value.reason, str(caught.value)


# Accepted


def test_an_event() -> None:
    assert parse(message()) == Event(b"u-17", NOW_MS - 1000, 4711, 4, 1)


def test_a_forget_request() -> None:
    assert parse(forget()) == Forget(b"u-17", NOW_MS - 1000)


def test_a_forget_request_with_an_events_fields_beside_it_is_a_forget_request() -> None:
    assert parse(message(forget_user="u-18")) == Forget(b"u-18", NOW_MS - 1000)


def test_unknown_fields_are_ignored() -> None:
    assert parse(message(board={"id": 9, "tags": [1, None, "x"]}, v=2)) == parse(message())
    assert parse(forget(reason="GDPR", ticket=7)) == parse(forget())


def test_a_forget_user_of_null_is_no_forget_request() -> None:
    assert parse(message(forget_user=None)) == parse(message())


@pytest.mark.parametrize(
    ("value", "event"),
    [
        (message(item_id=0), Event(b"u-17", NOW_MS - 1000, 0, 4, 1)),
        (message(item_id=MAX_ITEM_ID), Event(b"u-17", NOW_MS - 1000, MAX_ITEM_ID, 4, 1)),
        (message(item_id="4711"), Event(b"u-17", NOW_MS - 1000, hash_item_id("4711"), 4, 1)),
        (message(item_id="é" * (MAX_ITEM_BYTES // 2)), Event(b"u-17", NOW_MS - 1000, hash_item_id("é" * 256), 4, 1)),
        (message(user_id="x" * MAX_USER_BYTES), Event(b"x" * MAX_USER_BYTES, NOW_MS - 1000, 4711, 4, 1)),
        (message(user_id="東京 :*\n"), Event("東京 :*\n".encode(), NOW_MS - 1000, 4711, 4, 1)),
        (message(action="other", surface="other"), Event(b"u-17", NOW_MS - 1000, 4711, 0, 0)),
        (message(timestamp_ms=1), Event(b"u-17", 1, 4711, 4, 1)),
        (message(timestamp_ms=NOW_MS + DEFAULT_MAX_FUTURE_MS), Event(b"u-17", NOW_MS + 300_000, 4711, 4, 1)),
        (b"\n " + message() + b" \t\r\n", Event(b"u-17", NOW_MS - 1000, 4711, 4, 1)),
        (message()[:-1] + b', "action": "view"}', Event(b"u-17", NOW_MS - 1000, 4711, 1, 1)),  # JSON: the last one wins
        (
            raw("note", nested(MAX_DEPTH - 1)),
            Event(b"u-17", NOW_MS - 1000, 4711, 4, 1),
        ),  # the message's own object is one
        (message(note='"[{\\' * 500), Event(b"u-17", NOW_MS - 1000, 4711, 4, 1)),  # brackets in text nest nothing
    ],
)
def test_the_ends_of_what_is_allowed(value: bytes, event: Event) -> None:
    assert parse(value) == event


def test_a_message_of_the_greatest_size() -> None:
    padded = message() + b" " * (MAX_MESSAGE_BYTES - len(message()))
    assert parse(padded) == parse(message())


def test_what_the_producers_helpers_write_is_read() -> None:
    assert parse(encode_engagement("ü", "pin-9", "like", "search", 77)) == Event(
        "ü".encode(), 77, hash_item_id("pin-9"), 3, 2
    )
    assert parse(encode_forget("ü", 77)) == Forget("ü".encode(), 77)


# Refused


@pytest.mark.parametrize(
    ("value", "why", "says"),
    [
        (None, "null_value", "no value"),
        (b" " * (MAX_MESSAGE_BYTES + 1), "too_large", "16385 bytes, at most 16384"),
        (message(note="x" * MAX_MESSAGE_BYTES), "too_large", "at most 16384"),
        (b"", "not_json", "not JSON"),
        (b"   ", "not_json", "not JSON"),
        (b"\x05\x01\x02", "not_json", "not JSON"),
        (b"user_id=u-17", "not_json", "not JSON"),
        (message()[:-1], "not_json", "truncated"),
        (message() + b"{}", "not_json", "trailing"),
        (message().replace(b'"', b"'"), "not_json", "not JSON"),
        (b"\xef\xbb\xbf" + message(), "not_json", "not JSON"),
        (message().decode().encode("utf-16"), "not_json", "not JSON"),
        (message().replace(b"u-17", b"\xff\xfe"), "not_json", "utf-8"),
        (message().replace(b"u-17", b"\\ud800"), "not_json", "surrogate"),
        (raw("item_id", b"01"), "not_json", "not JSON"),
        (raw("item_id", b"NaN"), "not_json", "not JSON"),
        (raw("note", DEEP), "too_deep", "more than 64"),
        (b"[" * 10_000, "too_deep", "more than 64"),
        (raw("note", nested(MAX_DEPTH)), "too_deep", "more than 64"),
        # The event's decoder stops at a wrong field; what comes behind it is still no JSON.
        (b'{"user_id": 5, x', "not_json", "not JSON"),
        (b'{"user_id": 5, "note": ' + DEEP + b"}", "too_deep", "more than 64"),
        (b'{"user_id": 5, "note": "\xff"', "not_json", "not JSON"),
        (b'{"forget_user": "u-17"', "not_json", "truncated"),
        # A schema registry's framing, and what begins like it.
        (b"\x00\x01\x02", "format_not_accepted", "begins with 0x00"),
        (b"\x00\x00\x00\x00\x07" + message(), "format_not_accepted", "accepted is json, msgpack (`formats`)"),
        (b"\x01" + bytes(16), "format_not_accepted", "framed by a schema registry"),
        (message().decode().encode("utf-16-be"), "format_not_accepted", "begins with 0x00"),
        (b"null", "wrong_shape", "got `null`"),
        (b"17", "wrong_shape", "got `int`"),
        (b"[]", "wrong_shape", "got `array`"),
        (b"[" + message() + b"]", "wrong_shape", "got `array`"),
        (b"{}", "wrong_shape", "missing required field `user_id`"),
        (message(user_id=...), "wrong_shape", "`user_id`"),
        (message(item_id=...), "wrong_shape", "`item_id`"),
        (message(action=...), "wrong_shape", "`action`"),
        (message(surface=...), "wrong_shape", "`surface`"),
        (message(timestamp_ms=...), "wrong_shape", "`timestamp_ms`"),
        (message(user_id=17), "wrong_shape", "$.user_id"),
        (message(user_id=None), "wrong_shape", "$.user_id"),
        (message(item_id=1.5), "wrong_shape", "$.item_id"),
        (message(item_id=[4711]), "wrong_shape", "$.item_id"),
        (message(item_id=True), "wrong_shape", "$.item_id"),
        (message(action=4), "wrong_shape", "$.action"),
        (message(surface={}), "wrong_shape", "$.surface"),
        (message(timestamp_ms="2026-01-01T00:00:00Z"), "wrong_shape", "$.timestamp_ms"),
        (message(timestamp_ms=1767225600.5), "wrong_shape", "$.timestamp_ms"),
        (raw("item_id", b"9" * 9000), "wrong_shape", "out of range"),
        (message(forget_user=17), "wrong_shape", "$.forget_user"),
        (b'{"forget_user": "u-17"}', "wrong_shape", "`timestamp_ms`"),
        (message(user_id=""), "bad_user_id", "1 to 256 bytes"),
        (message(user_id="x" * (MAX_USER_BYTES + 1)), "bad_user_id", "not 257"),
        (message(user_id="é" * 129), "bad_user_id", "not 258"),
        (forget(forget_user=""), "bad_user_id", "1 to 256 bytes"),
        (message(item_id=-1), "bad_item_id", "-1 is not in [0, 2^63)"),
        (message(item_id=1 << 63), "bad_item_id", "is not in [0, 2^63)"),
        (message(item_id=1 << 70), "bad_item_id", "is not in [0, 2^63)"),
        (raw("item_id", b"9" * 4000), "bad_item_id", "more than 38 digits"),
        (message(item_id=""), "bad_item_id", "1 to 512 bytes"),
        (message(item_id="é" * 257), "bad_item_id", "1 to 512 bytes"),
        (message(action="pin"), "unknown_action", "'pin' is not one of other, view, click"),
        (message(action="SAVE"), "unknown_action", "'SAVE'"),
        (message(action=""), "unknown_action", "''"),
        (message(action="x" * 5000), "unknown_action", "x" * 64 + "'"),
        (message(surface="billboard"), "unknown_surface", "'billboard' is not one of other, home"),
        (message(timestamp_ms=0), "bad_timestamp", "is it in milliseconds?"),
        (message(timestamp_ms=-5), "bad_timestamp", "-5"),
        (message(timestamp_ms=NOW_MS * 1000), "bad_timestamp", "is it in milliseconds?"),
        (raw("timestamp_ms", b"9" * 4000), "bad_timestamp", "more than 38 digits"),
        (forget(timestamp_ms=0), "bad_timestamp", "is it in milliseconds?"),
        (message(timestamp_ms=NOW_MS + DEFAULT_MAX_FUTURE_MS + 1), "in_the_future", "300001 ms after"),
        (message(timestamp_ms=MAX_TIMESTAMP_MS), "in_the_future", "ms after the message's arrival"),
        (forget(timestamp_ms=NOW_MS + DEFAULT_MAX_FUTURE_MS + 1), "in_the_future", "300001 ms after"),
    ],
)  # fmt: skip
def test_a_bad_message_says_why(value: bytes | None, why: str, says: str) -> None:
    code, text = reason(value)
    assert code == why, text
    assert says in text
    assert len(text) < 500, "a message goes into a dead letter's header"


def test_every_reason_is_raised_by_some_message() -> None:
    parametrised = test_a_bad_message_says_why.pytestmark[0].args[1]  # type: ignore[attr-defined]
    elsewhere = {"too_old", "not_msgpack", "unknown_schema", "schema_mismatch"}  # test_formats.py, test_framed.py
    assert {why for _, why, _ in parametrised} | elsewhere == EventError.REASONS


@given(st.binary(max_size=200))
@example(b'{"user_id": 5, x')
def test_no_bytes_raise_anything_else(value: bytes) -> None:
    with pytest.raises(EventError):
        parse(value)


json_st = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*GOOD, "forget_user", "x"]), json_st, max_size=7), st.integers(0, 400))
def test_no_json_and_no_cut_of_it_raises_anything_else(changes: dict, cut: int) -> None:
    for value in (message(**changes), message(**changes)[:cut]):
        try:
            event = parse(value)
        except EventError as error:
            assert error.reason in EventError.REASONS  # noqa: PT017
        else:
            assert 0 < len(event.user) <= MAX_USER_BYTES


# Configuration


def test_age_limits_events_but_never_forget_requests() -> None:
    old = NOW_MS - 10_001
    assert reason(message(timestamp_ms=old), max_age_ms=10_000)[0] == "too_old"
    assert parse(message(timestamp_ms=old + 1), max_age_ms=10_000)
    assert parse(message(timestamp_ms=old), max_age_ms=0)
    assert parse(forget(timestamp_ms=old), max_age_ms=10_000) == Forget(b"u-17", old)


def test_the_allowed_future_is_configured() -> None:
    assert reason(message(timestamp_ms=NOW_MS + 1), max_future_ms=0)[0] == "in_the_future"
    assert parse(message(timestamp_ms=NOW_MS), max_future_ms=0)


def test_unknown_names_can_become_other() -> None:
    assert parse(message(action="pin", surface="billboard"), unknown_names="other") == Event(
        b"u-17", NOW_MS - 1000, 4711, 0, 0
    )


def test_a_vocabulary_of_ones_own() -> None:
    vocabulary = Vocabulary(actions=("other", "repin"), surfaces=("other", "board"))
    assert parse(message(action="repin", surface="board"), vocabulary=vocabulary) == Event(
        b"u-17", NOW_MS - 1000, 4711, 1, 1
    )
    assert reason(message(surface="board"), vocabulary=vocabulary)[0] == "unknown_action"


# String item ids


@pytest.mark.parametrize(
    ("item_id", "hashed"),
    # From `printf %s pin-1 | b2sum -l 64`, read as a little-endian number, the top bit cleared.
    [("pin-1", 4441824657733842633), ("4711", 194048346404447568), ("東京", 8082669206498513390)],
)
def test_string_ids_are_hashed_as_documented(item_id: str, hashed: int) -> None:
    assert hash_item_id(item_id) == hashed
