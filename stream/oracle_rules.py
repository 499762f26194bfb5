"""The oracle's own reading of raw messages: the rules that schemas/event.py states, plainly."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from schemas.event import (
    MAX_ITEM_BYTES,
    MAX_ITEM_ID,
    MAX_MESSAGE_BYTES,
    MAX_TIMESTAMP_MS,
    MAX_USER_BYTES,
    ParserConfig,
)
from stream.oracle_formats import UnreadableError, read_json, read_msgpack

Row = tuple[int, int, int, int]
"""An event of a sequence: timestamp_ms, item_id, action, surface."""


def read_message(
    value: bytes | None, arrived_ms: int, rules: ParserConfig, framed: Callable[[bytes], object] | None = None
) -> tuple[bytes, Row | None, int]:
    """(user, event or None, floor of a forget request or 0) of a raw message that arrived at `arrived_ms`.

    Args:
        framed: decodes what a schema registry's client framed (stream.oracle_framed); None = that is not accepted.

    Raises:
        UnreadableError: it is neither.
    """
    content = _fields(value, rules, framed)
    forget = content.get("forget_user")
    timestamp_ms = content.get("timestamp_ms")
    if type(timestamp_ms) is not int or not 0 < timestamp_ms <= MAX_TIMESTAMP_MS:
        raise UnreadableError("timestamp_ms")
    if timestamp_ms > arrived_ms + rules.max_future_ms:
        raise UnreadableError("in the future")
    if forget is not None:
        return _user(forget), None, timestamp_ms
    if rules.max_age_ms and timestamp_ms < arrived_ms - rules.max_age_ms:
        raise UnreadableError("too old")
    action = _code(content.get("action"), rules.vocabulary.actions, rules)
    surface = _code(content.get("surface"), rules.vocabulary.surfaces, rules)
    return _user(content.get("user_id")), (timestamp_ms, _item(content.get("item_id")), action, surface), 0


def _fields(value: bytes | None, rules: ParserConfig, framed: Callable[[bytes], object] | None) -> dict[str, Any]:
    if value is None or len(value) > MAX_MESSAGE_BYTES:
        raise UnreadableError("no value" if value is None else "too large")
    content: object
    if value[:1] in (b"\x00", b"\x01"):
        if framed is None:
            raise UnreadableError("format not accepted")
        content = framed(value)
    else:
        is_msgpack = b"\x80" <= value[:1] <= b"\x8f" or value[:1] in (b"\xde", b"\xdf")
        if ("msgpack" if is_msgpack else "json") not in rules.formats:
            raise UnreadableError("format not accepted")
        content = read_msgpack(value) if is_msgpack else read_json(value)
    if not isinstance(content, dict):
        raise UnreadableError("not an object")
    return content


def _id(value: object, most_bytes: int, field: str) -> bytes:
    if not isinstance(value, str) or not 0 < len(value.encode()) <= most_bytes:
        raise UnreadableError(f"{field}: not text of 1 to {most_bytes} bytes")
    return value.encode()


def _user(value: object) -> bytes:
    return _id(value, MAX_USER_BYTES, "user")


def _item(value: object) -> int:
    if type(value) is int and 0 <= value <= MAX_ITEM_ID:
        return value
    digest = blake2b(_id(value, MAX_ITEM_BYTES, "item_id"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % (1 << 63)


def _code(value: object, names: tuple[str, ...], rules: ParserConfig) -> int:
    if value in names:
        return names.index(str(value))
    if rules.unknown_names == "other" and isinstance(value, str):
        return 0
    raise UnreadableError("unknown action or surface")
