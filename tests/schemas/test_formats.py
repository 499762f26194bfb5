"""MessagePack beside JSON: the same events, the same strictness. What events are: test_event.py.

Run: pytest tests/schemas/test_formats.py
"""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.errors import EventError
from schemas.event import (
    MAX_ITEM_ID,
    MAX_MESSAGE_BYTES,
    Event,
    Forget,
    Parser,
    ParserConfig,
    encode_engagement,
    encode_forget,
    hash_item_id,
)
from schemas.formats import MAX_DEPTH, check_msgpack, walk_msgpack
from tests.schemas.test_event import FORGET, GOOD, NOW_MS, json_st, nested

pack = msgspec.msgpack.Encoder(decimal_format="number").encode
EVENT = Event(b"u-17", NOW_MS - 1000, 4711, 4, 1)
PARSER = Parser(ParserConfig())


def message(**changes: object) -> bytes:
    """A good event with fields changed; `...` removes one."""
    return pack({name: value for name, value in {**GOOD, **changes}.items() if value is not ...})


def raw(field: str, packed: bytes) -> bytes:
    """A good event with a field's MessagePack as it stands."""
    return message(**{field: "@"}).replace(b"\xa1@", packed)


def outcome(value: bytes, parser: Parser = PARSER) -> Event | Forget | str:
    try:
        return parser.parse(value, NOW_MS)
    except EventError as error:
        assert len(str(error)) < 500, "a message goes into a dead letter's header"  # noqa: PT017
        return error.reason


# Accepted


def test_an_event_and_a_forget_request() -> None:
    assert outcome(message()) == EVENT
    assert outcome(pack(FORGET)) == Forget(b"u-17", NOW_MS - 1000)
    assert outcome(message(forget_user="u-18")) == Forget(b"u-18", NOW_MS - 1000)
    assert outcome(message(forget_user=None)) == EVENT


def test_what_the_producers_helpers_write_is_read() -> None:
    assert outcome(encode_engagement("ü", "pin-9", "like", "search", 77, "msgpack")) == Event(
        "ü".encode(), 77, hash_item_id("pin-9"), 3, 2
    )
    assert outcome(encode_forget("ü", 77, "msgpack")) == Forget("ü".encode(), 77)


@pytest.mark.parametrize(
    "value",
    [
        message(board={"id": 9, "tags": [1, None, "x", 0.5, float("nan")]}, v=2),
        message(raw=b"\xff\xfe", kind=msgspec.msgpack.Ext(5, b"\xff")),
        raw("note", b"\x81\x01\x02"),  # names that are no text, in what nobody asked for
        raw("note", b"\x81\x80\x90"),
        raw("note", b"\x91" * (MAX_DEPTH - 1) + b"\xc0"),
        raw("note", b"\xd6\xff\xff\xff\xff\xff"),  # a timestamp, any at all
        b"\xde\x00\x05" + message()[1:],
        b"\xdf\x00\x00\x00\x05" + message()[1:],
        b"\x86" + message(action="view")[1:] + b"\xa6action\xa4save",  # the last one wins
        message(note="x" * (MAX_MESSAGE_BYTES - 200)),
        raw("item_id", b"\xcf\x00\x00\x00\x00\x00\x00\x12\x67"),  # an integer in more bytes than it needs
        raw("item_id", b"\xd3\x00\x00\x00\x00\x00\x00\x12\x67"),
    ],
)
def test_ways_to_write_an_event(value: bytes) -> None:
    assert outcome(value) == EVENT


def test_the_largest_item() -> None:
    assert outcome(message(item_id=MAX_ITEM_ID)) == EVENT._replace(item_id=MAX_ITEM_ID)


# Refused

_FLOAT_5 = b"\xcb\x40\x14\x00\x00\x00\x00\x00\x00"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (message()[:-1], "not_msgpack"),
        (message(note="x")[:-1], "not_msgpack"),
        (message() + b"\x00", "not_msgpack"),
        (message(note="x") + b"\xc0", "not_msgpack"),
        (message() + message(), "not_msgpack"),
        (b"\x85", "not_msgpack"),
        (b"\xdf\xff\xff\xff\xff" + message()[1:], "not_msgpack"),
        (raw("user_id", b"\xa2\xff\xfe"), "not_msgpack"),
        (raw("note", b"\xa2\xff\xfe"), "not_msgpack"),  # also in what nobody asked for
        (raw("note", b"\x81\xa1\xff\x00"), "not_msgpack"),
        (raw("note", b"\xa3\xed\xa0\x80"), "not_msgpack"),  # half a surrogate pair
        (message(no=1).replace(b"\xa2no", b"\xa2\xff\xfe"), "not_msgpack"),
        (raw("note", b"\xc1"), "not_msgpack"),
        (raw("user_id", b"\xc1"), "not_msgpack"),
        (raw("note", b"\xdb\xff\xff\xff\xff"), "not_msgpack"),
        (raw("note", b"\xdd\xff\xff\xff\xff"), "not_msgpack"),
        (raw("note", b"\x91" * 10_000), "too_deep"),
        (raw("note", b"\x91" * MAX_DEPTH + b"\xc0"), "too_deep"),
        (raw("note", b"\x81\xc0" * MAX_DEPTH + b"\xc0"), "too_deep"),
        (raw("note", b"\x91" * (MAX_DEPTH - 1) + b"\x80"), "too_deep"),
        (b"\x81" * 10_000, "too_deep"),
        (b"\x80", "wrong_shape"),
        (pack({}), "wrong_shape"),
        (raw("user_id", b"\xc4\x01u"), "wrong_shape"),  # bin is no text
        (message(user_id=17), "wrong_shape"),
        (message().replace(b"\xa7user_id", b"\xc4\x07user_id"), "wrong_shape"),
        (b"\x86" + message()[1:] + b"\x05\x05", "wrong_shape"),
        (b"\x86" + message()[1:] + b"\x90\x05", "wrong_shape"),
        (raw("item_id", _FLOAT_5), "wrong_shape"),
        (raw("timestamp_ms", _FLOAT_5), "wrong_shape"),
        (message(item_id=float("nan")), "wrong_shape"),
        (message(item_id=True), "wrong_shape"),
        (message(item_id=None), "wrong_shape"),
        (message(item_id=msgspec.msgpack.Ext(1, b"x")), "wrong_shape"),
        (raw("timestamp_ms", b"\xd6\xff\x65\x00\x00\x00"), "wrong_shape"),  # MessagePack's own timestamp
        (message(surface=...), "wrong_shape"),
        (message(forget_user=17), "wrong_shape"),
        (pack({"forget_user": "u"}), "wrong_shape"),
        (message(user_id=""), "bad_user_id"),
        (message(item_id=-1), "bad_item_id"),
        (message(item_id=1 << 63), "bad_item_id"),
        (message(timestamp_ms=0), "bad_timestamp"),
        (message(timestamp_ms=NOW_MS * 1000), "bad_timestamp"),
        (message(timestamp_ms=NOW_MS * 2), "in_the_future"),
        (message(action="pin"), "unknown_action"),
        (message(note="x" * MAX_MESSAGE_BYTES), "too_large"),
        # Other things that MessagePack can hold do not begin as a map does, so they are no JSON.
        (pack([message()]), "not_json"),
        (pack("text"), "not_json"),
        (b"\xc1", "not_json"),
    ],
)
def test_a_bad_message_says_why(value: bytes, why: str) -> None:
    assert outcome(value) == why


def test_what_is_not_accepted_is_refused_by_its_first_byte() -> None:
    only_json, only_msgpack = Parser(ParserConfig(formats=("json",))), Parser(ParserConfig(formats=("msgpack",)))
    assert outcome(json.dumps(GOOD).encode(), only_json) == outcome(message(), only_msgpack) == EVENT
    for parser, value in (
        (only_json, message()),
        (only_msgpack, json.dumps(GOOD).encode()),
        (only_msgpack, b" \n" + json.dumps(GOOD).encode()),
        (only_msgpack, b""),
    ):
        assert outcome(value, parser) == "format_not_accepted"


# The two formats agree

ids = st.text(max_size=5) | st.sampled_from(["u" * 256, "ü" * 129])
names = st.sampled_from(["save", "view", "home", "search", "other", "nothing", ""])
events = st.fixed_dictionaries(
    {
        "user_id": ids | st.none() | st.integers(),
        "item_id": ids | st.integers(-5, 2**64 - 1) | st.floats() | st.booleans(),
        "action": names,
        "surface": names,
        "timestamp_ms": st.integers(-1, NOW_MS + 10) | st.floats(),
    },
    optional={"forget_user": ids | st.none() | st.integers(0, 3), "x": json_st},
)


def packable(value: object) -> bool:
    """MessagePack's integers have 64 bits; NaN and infinities are not JSON."""
    if isinstance(value, list):
        return all(map(packable, value))
    if isinstance(value, dict):
        return all(map(packable, value.values()))
    if isinstance(value, float):
        return abs(value) < float("inf")
    return not isinstance(value, int) or -(2**63) <= value < 2**64


@given(events.filter(packable))
def test_the_same_event_in_both_formats(fields: dict[str, object]) -> None:
    assert outcome(pack(fields)) == outcome(json.dumps(fields).encode())


@given(st.binary(max_size=100), st.sampled_from([b"", b"\x80", b"\x85", b"\xde", b"\xdf", message()[:1]]))
@example(b"", b"")
def test_no_bytes_raise_anything_else(value: bytes, before: bytes) -> None:
    assert isinstance(outcome(before + value), str)


@given(events.filter(packable), st.data())
def test_no_damage_raises_anything_else(fields: dict[str, object], data: st.DataObject) -> None:
    value = bytearray(pack(fields))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(value) - 1))
        value[at] = data.draw(st.integers(0, 255))
    result = outcome(bytes(value[: data.draw(st.integers(0, len(value)))]))
    assert isinstance(result, Event | Forget) or result in EventError.REASONS


@given(json_st.filter(packable))
def test_the_walk_takes_all_that_a_decoder_takes(content: object) -> None:
    value = pack(content)
    for check in (check_msgpack, walk_msgpack):
        check(value)
        for wrong in (value[:-1], value + b"\x00"):
            with pytest.raises(EventError):
                check(wrong)


def reason(check: Callable[[bytes], None], value: bytes) -> str:
    try:
        check(value)
    except EventError as error:
        return error.reason
    except UnicodeDecodeError:  # the reader's to name
        return "not_msgpack"
    return ""


@given(json_st.filter(packable), st.lists(st.tuples(st.integers(0, 99), st.binary(max_size=2)), max_size=3))
@example({"a": 1}, [(0, b"\x81\x80")])
@example([1], [(0, b"\xdd\xff")])
def test_the_fast_check_is_the_walk(content: object, damage: list[tuple[int, bytes]]) -> None:
    value = bytearray(pack(content))
    for at, some in damage:
        value[at : at + 1] = some
    assert reason(check_msgpack, bytes(value)) == reason(walk_msgpack, bytes(value))


# The caller's stack


def at_depth(frames: int, call: Callable[[], object]) -> object:
    return call() if not frames else at_depth(frames - 1, call)


@pytest.mark.parametrize("depth", [1, MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 500, 900, 1500])
def test_acceptance_does_not_depend_on_the_callers_stack(depth: int) -> None:
    in_json = json.dumps(GOOD).encode()[:-1] + b', "note": ' + nested(depth) + b"}"
    in_msgpack = raw("note", b"\x91" * (depth - 1) + b"\x90")
    for value in (in_json, in_msgpack):
        shallow = outcome(value)
        assert shallow == (EVENT if depth < MAX_DEPTH else "too_deep")
        assert at_depth(700, lambda value=value: outcome(value)) == shallow
