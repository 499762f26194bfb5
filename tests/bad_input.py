"""Every kind of bad input that the tests know, in one place: what broken producers, workers and disks write.

What `slipstream replay --malformed` sends (stream.malformed) is part of it.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from schemas.batch import HEADER_BYTES, Batch, encode_batch
from schemas.event import (
    MAX_ITEM_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_USER_BYTES,
    encode_engagement,
    encode_forget,
)
from schemas.formats import MAX_DEPTH
from schemas.sequence import RECORD, Sequence, encode_sequence
from stream.malformed import KINDS

#: Of the parser that these kinds are for: the default one accepts every age.
MAX_AGE_MS = 1_000_000
#: Reasons that become no dead letter where unknown names are let through as `other`.
UNKNOWN_NAMES = ("unknown_action", "unknown_surface")

_MALFORMED = {
    "null value": "null_value",
    "empty value": "not_json",
    "truncated JSON": "not_json",
    "text": "not_json",
    "not UTF-8": "not_json",
    "UTF-16": "not_json",
    "compressed": "not_json",
    "Python's repr": "not_json",
    "framed by a schema registry's client": "format_not_accepted",
    "truncated MessagePack": "not_msgpack",
    "two events": "not_json",
    "an array": "wrong_shape",
    "a number": "wrong_shape",
    "nested deeply": "too_deep",
    "too large": "too_large",
    "no user": "wrong_shape",
    "no item": "wrong_shape",
    "no action": "wrong_shape",
    "no surface": "wrong_shape",
    "no timestamp": "wrong_shape",
    "user is a number": "wrong_shape",
    "empty user": "bad_user_id",
    "long user": "bad_user_id",
    "item is null": "wrong_shape",
    "item is a fraction": "wrong_shape",
    "item is NaN": "not_json",
    "negative item": "bad_item_id",
    "item past 63 bits": "bad_item_id",
    "empty item": "bad_item_id",
    "long item": "bad_item_id",
    "action is an object": "wrong_shape",
    "timestamp is text": "wrong_shape",
    "timestamp is a fraction": "wrong_shape",
    "timestamp of zero": "bad_timestamp",
    "timestamp in nanoseconds": "bad_timestamp",
    "far future": "in_the_future",
    "forget request without a user": "bad_user_id",
    "forget request without a time": "wrong_shape",
}


class _Fields:
    """An event's JSON, with fields changed (`...` removes one) or written as they stand."""

    def __init__(self, user: str, now_ms: int) -> None:
        self.fields = {"user_id": user, "item_id": 1, "action": "save", "surface": "home", "timestamp_ms": now_ms}

    def json(self, **changed: Any) -> bytes:
        return json.dumps(
            {name: value for name, value in {**self.fields, **changed}.items() if value is not ...}
        ).encode()

    def raw(self, field: str, literal: bytes) -> bytes:
        return self.json(**{field: "@"}).replace(b'"@"', literal)

    def msgpack(self, **changed: Any) -> bytes:
        return msgspec.msgpack.encode({**self.fields, **changed})


def raw_kinds(now_ms: int) -> Mapping[str, tuple[bytes | None, str]]:
    """Raw messages for `engagements`: kind -> (value, reason), for a parser with `MAX_AGE_MS`."""
    of = _Fields("bad", now_ms)
    event, raw, packed = of.json, of.raw, of.msgpack
    assert KINDS.keys() == _MALFORMED.keys(), "say here with which reason each new kind is refused"
    kinds: dict[str, tuple[bytes | None, str]] = {
        name: (make(of.fields), _MALFORMED[name]) for name, make in KINDS.items()
    }
    return kinds | {
        # What is no JSON
        "white space": (b" \r\n\t ", "not_json"),
        "a byte order mark": (b"\xef\xbb\xbf" + event(), "not_json"),
        "a NUL behind it": (event() + b"\0", "not_json"),
        "a trailing comma": (event()[:-1] + b",}", "not_json"),
        "a comment": (event() + b" // the end", "not_json"),
        "a key without quotes": (event().replace(b'"item_id"', b"item_id"), "not_json"),
        "a raw line break in text": (raw("user_id", b'"a\nb"'), "not_json"),
        "a leading zero": (raw("item_id", b"007"), "not_json"),
        "a leading plus": (raw("item_id", b"+7"), "not_json"),
        "a hexadecimal number": (raw("item_id", b"0x7"), "not_json"),
        "Infinity": (event(timestamp_ms=float("inf")), "not_json"),
        "-Infinity": (event(item_id=float("-inf")), "not_json"),
        "half a surrogate pair": (raw("user_id", b'"\\ud800"'), "not_json"),
        "half a surrogate pair in an ignored field": (raw("note", b'"\\ud800"'), "not_json"),
        "not UTF-8 in an ignored field": (raw("note", b'"\xc3("'), "not_json"),
        "an overlong encoding": (raw("user_id", b'"\xc0\xaf"'), "not_json"),
        "a surrogate as UTF-8": (raw("user_id", b'"\xed\xa0\x80"'), "not_json"),
        "nothing but zeros": (bytes(100), "format_not_accepted"),
        # What is too much
        "10 MB": (b" " * 10_000_000 + event(), "too_large"),
        "one byte too many": (event().ljust(MAX_MESSAGE_BYTES + 1), "too_large"),
        "nested 10,000 deep": (raw("item_id", b"[" * 10_000), "too_deep"),
        "nested 10,000 deep in an ignored field": (raw("note", b"[" * 10_000), "too_deep"),
        "an array nested 10,000 deep": (b"[" * 10_000, "too_deep"),
        "objects nested one too deep": (raw("note", b'{"n":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH), "too_deep"),
        # What is no event
        "null": (b"null", "wrong_shape"),
        "true": (b"true", "wrong_shape"),
        "a string": (b'"save"', "wrong_shape"),
        "an empty object": (b"{}", "wrong_shape"),
        "an object of another kind": (b'{"type": "heartbeat"}', "wrong_shape"),
        "user is null": (event(user_id=None), "wrong_shape"),
        "item is a list": (event(item_id=[1]), "wrong_shape"),
        "item is true": (event(item_id=True), "wrong_shape"),
        "item is 1e400": (raw("item_id", b"1e400"), "wrong_shape"),
        "action is a number": (event(action=4), "wrong_shape"),
        "surface is null": (event(surface=None), "wrong_shape"),
        "names in another case": (event().replace(b"user_id", b"userId"), "wrong_shape"),
        "forgets a number": (event(forget_user=17), "wrong_shape"),
        # Ids
        "user of one byte too many": (event(user_id="u" * (MAX_USER_BYTES + 1)), "bad_user_id"),
        "user of 129 characters in 258 bytes": (event(user_id="ü" * 129), "bad_user_id"),
        "item text of one byte too many": (event(item_id="i" * (MAX_ITEM_BYTES + 1)), "bad_item_id"),
        "item past 64 bits": (event(item_id=1 << 70), "bad_item_id"),
        "item of -2^63": (event(item_id=-(1 << 63)), "bad_item_id"),
        "item of 4,000 digits": (raw("item_id", b"9" * 4000), "bad_item_id"),
        "a good item, then a bad one": (event()[:-1] + b', "item_id": -1}', "bad_item_id"),
        # Names
        "unknown action": (event(action="purchase"), "unknown_action"),
        "action in capitals": (event(action="SAVE"), "unknown_action"),
        "empty action": (event(action=""), "unknown_action"),
        "long action": (event(action="x" * 5000), "unknown_action"),
        "unknown surface": (event(surface="fridge"), "unknown_surface"),
        "surface with a space": (event(surface="home "), "unknown_surface"),
        # Times
        "microseconds": (event(timestamp_ms=now_ms * 1000), "bad_timestamp"),
        "before 1970": (event(timestamp_ms=-1), "bad_timestamp"),
        "time of 4,000 digits": (raw("timestamp_ms", b"9" * 4000), "bad_timestamp"),
        "seconds": (event(timestamp_ms=now_ms // 1000), "too_old"),
        "too old": (event(timestamp_ms=now_ms - MAX_AGE_MS - 1), "too_old"),
        "an hour ahead": (event(timestamp_ms=now_ms + 3_600_000), "in_the_future"),
        "forget request from the future": (encode_forget("bad", now_ms + 3_600_000), "in_the_future"),
        # MessagePack
        "truncated MessagePack": (packed()[:-3], "not_msgpack"),
        "bytes behind MessagePack": (packed() + b"\0", "not_msgpack"),
        "MessagePack that is not UTF-8": (packed(user_id="???").replace(b"???", b"\xff\xfe\xfd"), "not_msgpack"),
        "MessagePack without its fields": (msgspec.msgpack.encode({"a": 1}), "wrong_shape"),
        "MessagePack with a float": (packed(item_id=1.5), "wrong_shape"),
        "MessagePack nested 10,000 deep": (b"\x81\xa4note" + b"\x91" * 10_000 + b"\x01", "too_deep"),
        # Framed by a schema registry's client, where none is configured
        "framed by a registry's client": (b"\x00\x00\x00\x00\x07" + bytes(range(40)), "format_not_accepted"),
        "framed with a GUID": (b"\x01" + bytes(range(16)) + b"event", "format_not_accepted"),
    }


def odd_but_good(user: str, now_ms: int) -> Mapping[str, bytes]:
    """Raw messages that look odd and are events all the same."""
    of = _Fields(user, now_ms)
    event, raw = of.json, of.raw
    return {
        "a name twice: the last one counts": event()[:-1] + b', "item_id": 2}',
        "a bad item, then a good one": event(item_id=-1)[:-1] + b', "item_id": 3}',
        "white space around it": b"\r\n\t " + event(item_id=4) + b" \n",
        "unknown fields": event(item_id=5, note={"deep": [[None]]}, v=2),
        "escapes": raw("item_id", b'"\\u00fc\\ud83d\\ude00"'),
        "an item of 512 bytes": event(item_id="i" * MAX_ITEM_BYTES),
        "the largest message": event(item_id=6).ljust(MAX_MESSAGE_BYTES),
        "nested as deep as allowed": raw("note", b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1)),
        "just not too old": event(item_id=7, timestamp_ms=now_ms - MAX_AGE_MS // 2),
        "a clock that is ahead a little": event(item_id=8, timestamp_ms=now_ms + 60_000),
        "MessagePack": of.msgpack(item_id=9),
    }


def bad_batches() -> Mapping[str, bytes | None]:
    """Messages of `engagement-batches` that are none."""
    records = np.ones(3, RECORD)
    records["timestamp_ms"] = np.arange(3) + 1
    good = encode_batch(Batch([b"bad"], np.array([1]), np.array([0]), np.array([3], np.uint32), records))

    def changed(at: int, new: bytes) -> bytes:
        return good[:at] + new + good[at + len(new) :]

    def signed(body: bytes) -> bytes:
        return good[: HEADER_BYTES - 4] + struct.pack("<I", zlib.crc32(body)) + body

    body = good[HEADER_BYTES:]
    return {
        "null batch": None,
        "empty batch": b"",
        "no batch": b"not a batch, but longer than the header of one",
        "a raw event": encode_engagement("bad", 1, "save", "home", 1),
        "header only": good[:HEADER_BYTES],
        "truncated batch": good[:-1],
        "a byte too many": good + b"\0",
        "a flipped bit": changed(30, bytes([good[30] ^ 1])),
        "a flipped bit in the checksum": changed(20, bytes([good[20] ^ 1])),
        "batch of a newer version": changed(4, b"\x02"),
        "batch of version 0": changed(4, b"\x00"),
        "reserved bytes in use": changed(5, b"\x01"),
        "columns that do not add up": signed(body[:16] + struct.pack("<I", 4) + body[20:]),
    }


def bad_sequences() -> Mapping[str, bytes]:
    """Values of the changelog that are no sequences."""
    good = encode_sequence(Sequence(0, np.ones(2, RECORD)))
    return {
        "truncated sequence": good[:-1],
        "damaged sequence": good[:-1] + bytes([good[-1] ^ 1]),
        "empty sequence": b"",
        "no sequence": b"not a sequence at all",
    }
