"""Messages that no ingest may accept, made from real events: what broken producers send.

Every kind is rejected for every event, whatever the vocabulary and the policy for unknown names; so a test can count them.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from schemas.event import MAX_ITEM_BYTES, MAX_ITEM_ID, MAX_MESSAGE_BYTES, MAX_TIMESTAMP_MS, MAX_USER_BYTES

Fields = Mapping[str, Any]
"""An event's JSON object."""


def _json(fields: Fields, **changed: Any) -> bytes:
    return json.dumps({**fields, **changed}).encode()


def _without(name: str) -> Callable[[Fields], bytes]:
    return lambda fields: _json({key: value for key, value in fields.items() if key != name})


def _with(**changed: Any) -> Callable[[Fields], bytes]:
    return lambda fields: _json(fields, **changed)


#: Kind -> the raw value made from an event; None is a message without a value.
KINDS: Mapping[str, Callable[[Fields], bytes | None]] = {
    "null value": lambda _: None,
    "empty value": lambda _: b"",
    "truncated JSON": lambda fields: _json(fields)[:-9],
    "text": lambda fields: f"user {fields['user_id']} did {fields['action']}".encode(),
    "not UTF-8": lambda fields: _json(fields, user_id="?").replace(b'"?"', b'"\xff\xfe"'),
    "UTF-16": lambda fields: _json(fields).decode().encode("utf-16"),
    "compressed": lambda fields: gzip.compress(_json(fields), mtime=0),
    "Python's repr": lambda fields: repr(dict(fields)).encode(),
    "framed by a schema registry's client": lambda fields: bytes(5) + _json(fields),  # no registry gives out the id 0
    "truncated MessagePack": lambda fields: msgspec.msgpack.encode(fields)[:-1],
    "two events": lambda fields: _json(fields) + b"\n" + _json(fields),
    "an array": lambda fields: b"[" + _json(fields) + b"]",
    "a number": lambda _: b"42",
    "nested deeply": lambda _: b'{"user_id": ' + b"[" * 10_000,
    "too large": lambda fields: _json(fields, comment="x" * MAX_MESSAGE_BYTES),
    "no user": _without("user_id"),
    "no item": _without("item_id"),
    "no action": _without("action"),
    "no surface": _without("surface"),
    "no timestamp": _without("timestamp_ms"),
    "user is a number": _with(user_id=17),
    "empty user": _with(user_id=""),
    "long user": _with(user_id="u" * (MAX_USER_BYTES + 1)),
    "item is null": _with(item_id=None),
    "item is a fraction": _with(item_id=0.5),
    "item is NaN": _with(item_id=float("nan")),
    "negative item": _with(item_id=-1),
    "item past 63 bits": _with(item_id=MAX_ITEM_ID + 1),
    "empty item": _with(item_id=""),
    "long item": _with(item_id="i" * (MAX_ITEM_BYTES + 1)),
    "action is an object": _with(action={"name": "save"}),
    "timestamp is text": lambda fields: _json(fields, timestamp_ms=str(fields["timestamp_ms"])),
    "timestamp is a fraction": lambda fields: _json(fields, timestamp_ms=fields["timestamp_ms"] + 0.5),
    "timestamp of zero": _with(timestamp_ms=0),
    "timestamp in nanoseconds": _with(timestamp_ms=1_700_000_000_000_000_000),
    "far future": _with(timestamp_ms=MAX_TIMESTAMP_MS),
    "forget request without a user": lambda fields: _json({"forget_user": "", "timestamp_ms": fields["timestamp_ms"]}),
    "forget request without a time": lambda fields: _json({"forget_user": fields["user_id"]}),
}
