"""The oracle on hand-made messages, and against the contracts and the stages' pure cores, which it shares no code with."""

from __future__ import annotations

import json
from functools import reduce
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.batch import decode_batch
from schemas.errors import EventError
from schemas.event import (
    MAX_MESSAGE_BYTES,
    MAX_TIMESTAMP_MS,
    Event,
    Parser,
    ParserConfig,
    encode_engagement,
    encode_forget,
    hash_item_id,
)
from schemas.sequence import EMPTY, NO_RECORDS, RECORD, Sequence, encode_sequence, merge
from stream.malformed import KINDS
from stream.merge import fold
from stream.oracle import Changelog, Found, Mismatch, Rebuilt, collect, compare, decode, encode, rebuild
from stream.oracle_formats import UnreadableError
from stream.oracle_rules import read_message
from stream.pack import pack
from stream.partitioner import partitions_of
from stream.whole_topic import Record

NOW_MS = 1_790_000_000_000
RULES = ParserConfig()
SAVE, HOME = RULES.vocabulary.action_codes["save"], RULES.vocabulary.surface_codes["home"]


def raw(*values: bytes | None) -> list[Record]:
    return [Record(1, 10 + at, NOW_MS, None, value) for at, value in enumerate(values)]


def event(user: str, at_ms: int, item: int | str = 1) -> bytes:
    return encode_engagement(user, item, "save", "home", at_ms)


def test_a_sequence_is_the_newest_distinct_events_sorted() -> None:
    messages = raw(
        event("u", 30), event("u", 10), event("u", 20, "sku"), event("u", 30), event("v", 5), event("u", 30, 0)
    )
    rebuilt = rebuild(messages, RULES, capacity=3)
    assert rebuilt.sequences == {
        b"u": (0, [(20, hash_item_id("sku"), SAVE, HOME), (30, 0, SAVE, HOME), (30, 1, SAVE, HOME)]),
        b"v": (0, [(5, 1, SAVE, HOME)]),
    }
    assert (rebuilt.messages, rebuilt.unreadable) == (6, [])


def test_forgetting_holds_in_any_order() -> None:
    messages = raw(event("u", 10), event("u", 21), encode_forget("u", 20), event("u", 20), encode_forget("u", 15))
    for order in (messages, messages[::-1]):
        assert rebuild(order, RULES).sequences == {b"u": (20, [(21, 1, SAVE, HOME)])}
    assert rebuild(raw(encode_forget("w", 7)), RULES).sequences == {b"w": (7, [])}, "a floor for who may still come"


def test_what_cannot_be_read_is_counted_with_its_provenance() -> None:
    fields = {"user_id": "u", "item_id": 1, "action": "save", "surface": "home", "timestamp_ms": 30}
    values = [make(fields) for make in KINDS.values()]
    rebuilt = rebuild(raw(event("u", 1), *values), RULES)
    assert [(bad.partition, bad.offset) for bad in rebuilt.unreadable] == [(1, 11 + at) for at in range(len(KINDS))]
    assert list(rebuilt.sequences) == [b"u"]


def test_policies_for_unknown_names_age_and_future() -> None:
    unknown = encode_engagement("u", 1, "bought", "moon", NOW_MS)
    old, ahead = event("u", NOW_MS - 1001), event("u", NOW_MS + 6)
    with pytest.raises(UnreadableError, match="unknown"):
        read_message(unknown, NOW_MS, RULES)
    other = ParserConfig(unknown_names="other")
    assert read_message(unknown, NOW_MS, other) == (b"u", (NOW_MS, 1, 0, 0), 0)
    with pytest.raises(UnreadableError, match="old"):
        read_message(old, NOW_MS, ParserConfig(max_age_ms=1000))
    assert read_message(encode_forget("u", 5), NOW_MS, ParserConfig(max_age_ms=1000)) == (b"u", None, 5)
    with pytest.raises(UnreadableError, match="future"):
        read_message(ahead, NOW_MS, ParserConfig(max_future_ms=5))
    assert read_message(ahead, NOW_MS, ParserConfig(max_future_ms=6))[1] is not None


def test_its_layout_is_the_contracts() -> None:
    rows = [(1, 2, 3, 4), (5, 2**63 - 1, 65535, 0)]
    for floor, some in ((0, rows), (7, []), (MAX_TIMESTAMP_MS, rows[1:])):
        value = encode_sequence(Sequence(floor, np.array(some, RECORD)))
        assert encode(floor, some) == value
        assert decode(value) == (floor, some)
    for damaged in (b"", value[:-1], value[:-20], value[:20] + b"\1" + value[21:], b"XX" + value[2:]):
        assert decode(damaged) is None


# Comparison. One partition, so every user is at home.


def changelog_of(*found: tuple[bytes, bytes]) -> Changelog:
    return Changelog(1, {user: Found(value, 0, at, 0) for at, (user, value) in enumerate(found)})


ROWS = [(10, 1, SAVE, HOME), (20, 2, SAVE, HOME)]
WANTED = Rebuilt({b"u": (5, ROWS)})


def test_equal_is_no_mismatch() -> None:
    assert compare(WANTED, changelog_of((b"u", encode(5, ROWS)))) == []
    assert compare(Rebuilt(), changelog_of()) == []


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (encode(5, ROWS[:1]), "lacks 1 of its 2 events, the newest is (20, 2, 4, 1)"),
        (encode(5, [*ROWS, (30, 3, 0, 0)]), "should not have 1 of its 2 events, the newest is (30, 3, 0, 0)"),
        (encode(0, ROWS), "the floor is 0, not 5"),
        (encode(5, ROWS[::-1]), "not sorted or not distinct"),
        (encode(5, ROWS + ROWS[1:]), "not sorted or not distinct"),
        (encode(5, ROWS)[:-1], "damaged"),
    ],
)
def test_a_wrong_sequence_is_named_with_its_place(value: bytes, what: str) -> None:
    (mismatch,) = compare(WANTED, changelog_of((b"t", encode(0, ROWS)), (b"u", value)), "topic")[:1]
    assert mismatch.user == b"u"
    assert mismatch.what.startswith("topic[0]@1: ")
    assert what in mismatch.what


def test_missing_and_unexpected_users() -> None:
    assert compare(WANTED, changelog_of((b"x", encode(0, [])))) == [
        Mismatch(b"u", "sequences: missing, with 2 events and the floor 5"),
        Mismatch(b"x", "sequences[0]@0: no raw message names this user"),
    ]


def test_the_changelog_is_what_compaction_would_leave() -> None:
    users = [b"a", b"b", b"c", b"d"]
    home = dict(zip(users, partitions_of(users, 4).tolist(), strict=True))
    changelog = Changelog(4)
    collect(changelog, [Record(home[b"a"], 0, 0, b"a", b"old"), Record(home[b"b"], 1, 0, b"b", b"gone")])
    collect(changelog, [Record(home[b"b"], 2, 0, b"b", None), Record(home[b"a"], 5, 0, b"a", b"new")])
    collect(changelog, [Record(home[b"c"], 3, 0, b"c", None), Record((home[b"d"] + 1) % 4, 4, 0, b"d", b"stray")])
    collect(changelog, [Record(2, 9, 0, None, b"whose?"), Record(2, 10, 0, b"", None)])
    assert changelog.sequences == {b"a": Found(b"new", home[b"a"], 5, 0)}
    assert changelog.misplaced == [(b"d", (home[b"d"] + 1) % 4, 4)]
    assert changelog.keyless == [(2, 9), (2, 10)]
    whats = [mismatch.what for mismatch in compare(Rebuilt(), changelog)]
    assert [what.split(": ")[1] for what in whats] == [
        "a value without a user",
        "a value without a user",
        "not the user's partition",
        "no raw message names this user",
    ]


# Against the rest of the project.

EVENTS = st.tuples(
    st.sampled_from("ab"), st.integers(1, 6), st.sampled_from([0, 1, "x"]), st.sampled_from(["view", "save"])
)


@st.composite
def messages(draw: st.DrawFn) -> list[bytes]:
    some = draw(st.lists(EVENTS, max_size=30))
    forgets = draw(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 5)), max_size=2))
    values = [encode_engagement(user, item, action, "home", at) for user, at, item, action in some]
    values += [encode_forget(user, at) for user, at in forgets]
    values += draw(st.lists(st.sampled_from([b"", b"{}", b"[1]"]), max_size=2))
    return draw(st.permutations(values + draw(st.permutations(values))[: draw(st.integers(0, 5))]))


@given(messages(), st.integers(1, 8), st.integers(1, 5))
def test_the_contract_and_the_stages_agree(values: list[bytes], capacity: int, pass_size: int) -> None:
    wanted = {user: encode(*sequence) for user, sequence in rebuild(raw(*values), RULES, capacity).sequences.items()}
    parser = Parser(RULES)

    merged: dict[bytes, list[Sequence]] = {}
    for value in values:
        try:
            parsed = parser.parse(value, NOW_MS)
        except EventError:
            continue
        news = (
            Sequence(0, np.array([parsed[1:]], RECORD))
            if isinstance(parsed, Event)
            else Sequence(parsed.before_ms, NO_RECORDS)
        )
        merged.setdefault(parsed.user, []).append(news)
    by_contract = {
        user: encode_sequence(reduce(lambda a, b: merge(a, b, capacity), news, EMPTY)) for user, news in merged.items()
    }
    assert by_contract == wanted

    by_stages: dict[bytes, bytes] = {}
    for start in range(0, len(values), pass_size):
        some = values[start : start + pass_size]
        packed = pack(some, [NOW_MS] * len(some), parser, 3, 1 << 20)
        fold(by_stages, [decode_batch(batch.value) for batch in packed.batches], capacity)
    assert by_stages == wanted


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, 2**63 - 1, 2**63, 10**5000, NOW_MS, NOW_MS + 600_000, MAX_TIMESTAMP_MS, MAX_TIMESTAMP_MS + 1]),
    st.sampled_from(["", "save", "home", "é\U0001f600", "\ud800", "\udc80", "x" * 256, "ü" * 128 + "x", "i" * 513]),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.none(), max_size=2),
)
NAMES = ["user_id", "item_id", "action", "surface", "timestamp_ms", "forget_user", "note"]
BITS = st.sampled_from(
    [
        *rb'" \ \u \ud83d\ude00 \udc80 0 - . e , { } [ ] : NaN -Infinity null'.split(),
        *(b"", b" ", b"\n", b"\0", b"\xff", b"\xc3\xa9", b"\xed\xa0\x80", b"\xef\xbb\xbf"),
    ]
)


@st.composite
def odd_messages(draw: st.DrawFn) -> bytes:
    """An event, some of its fields odd, some of its bytes replaced."""
    fields: dict[str, Any] = {"user_id": "u", "item_id": 5, "action": "save", "surface": "home", "timestamp_ms": NOW_MS}
    fields |= draw(st.dictionaries(st.sampled_from(NAMES), ODD, max_size=2))
    for name in draw(st.sets(st.sampled_from(NAMES), max_size=1)):
        fields.pop(name, None)
    digits = {name: "1" + "0" * 5000 for name, value in fields.items() if value == 10**5000}
    text = json.dumps(fields | dict.fromkeys(digits, 0.125), ensure_ascii=draw(st.booleans()))
    for long in digits.values():
        text = text.replace("0.125", long, 1)
    value = text.encode("utf-8", "surrogatepass")
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, len(value)))
        value = value[:start] + draw(BITS) + value[start + draw(st.integers(0, 3)) :]
    return value + draw(st.sampled_from([b"", b"\n ", b" " * MAX_MESSAGE_BYTES]))


def packed(content: Any) -> bytes:
    """MessagePack of what JSON allows and MessagePack does not too: its integers are cut off to 64 bits."""
    if isinstance(content, dict):
        count = bytes([0x80 + len(content)])
        return count + b"".join(packed(name) + packed(inner) for name, inner in content.items())
    if isinstance(content, list):
        return bytes([0x90 + len(content)]) + b"".join(map(packed, content))
    if isinstance(content, str):
        text = content.encode("utf-8", "surrogatepass")
        return b"\xda" + len(text).to_bytes(2, "big") + text
    if isinstance(content, int) and not isinstance(content, bool):
        return msgspec.msgpack.encode(max(min(content, 2**64 - 1), -(2**63)))
    return msgspec.msgpack.encode(content)


PACKED_BITS = st.one_of(
    st.binary(max_size=2),
    st.sampled_from([b"\xc1", b"\xc4\1u", b"\xd4\5x", b"\xd6\xff\xff\xff\xff\xff", b"\xa2\xff\xfe", b"\x81\x80\x90"]),
    st.sampled_from([b"\x91" * deep for deep in (62, 63, 64, 65, 2000)]),
    st.sampled_from([b"\xdc\0\2", b"\xdd\0\0\0\1", b"\xde\0\0", b"\xdf\xff\xff\xff\xff", b"\xd9\1a", b"\xdb\0\0\0\1a"]),
    st.sampled_from([b"\xca\0\0\0\0", b"\xcb" + bytes(8), b"\xcf" + bytes(8), b"\xd3" + b"\xff" * 8, b"\xc0", b"\xc3"]),
)


@st.composite
def odd_msgpack(draw: st.DrawFn) -> bytes:
    """As `odd_messages`, in MessagePack."""
    fields: dict[str, Any] = {"user_id": "u", "item_id": 5, "action": "save", "surface": "home", "timestamp_ms": NOW_MS}
    fields |= draw(st.dictionaries(st.sampled_from(NAMES), ODD, max_size=2))
    for name in draw(st.sets(st.sampled_from(NAMES), max_size=1)):
        fields.pop(name, None)
    value = packed(fields)
    if draw(st.booleans()):
        value = bytes([value[0] + 1]) + value[1:] + packed("note") + draw(PACKED_BITS)
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, len(value)))
        value = value[:start] + draw(PACKED_BITS) + value[start + draw(st.integers(0, 3)) :]
    return value + draw(st.sampled_from([b"", b"", b"\xc0", bytes(MAX_MESSAGE_BYTES)]))


@st.composite
def nested_json(draw: st.DrawFn) -> bytes:
    """An event with brackets in another field, about as deep as is allowed."""
    depth = draw(st.integers(60, 67))
    brackets = draw(
        st.sampled_from([("[", "]"), ('{"a":', "}"), ('["]", ', "]"), ('{"\\\\":', "}"), ('["\\"[",', "]")])
    )
    note = brackets[0] * depth + draw(st.sampled_from(["1", "[]", '"[{"', ""])) + brackets[1] * depth
    return event("u", NOW_MS)[:-1] + f', "note": {note}}}'.encode()


ONLY_JSON = ParserConfig(formats=("json",))
ODD_RULES = [RULES, ParserConfig(unknown_names="other", max_age_ms=10**6), ONLY_JSON]


@settings(max_examples=300)
@given(odd_messages() | odd_msgpack() | nested_json(), st.sampled_from(ODD_RULES))
def test_the_oracle_and_ingest_read_the_same_messages(value: bytes, rules: ParserConfig) -> None:
    """Two implementations of the rules and of the decoders."""
    try:
        parsed = Parser(rules).parse(value, NOW_MS)
    except EventError as refused:
        with pytest.raises(UnreadableError):
            pytest.fail(f"ingest refuses it ({refused}), the oracle reads {read_message(value, NOW_MS, rules)}")
    else:
        row, floor = (tuple(parsed[1:]), 0) if isinstance(parsed, Event) else (None, parsed.before_ms)
        assert read_message(value, NOW_MS, rules) == (parsed.user, row, floor)
