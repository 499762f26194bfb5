"""The oracle's own reading of raw messages: the rules that schemas/event.py states, by the standard library, plainly.

JSON leaves open what an object with the same name twice means: here the last one counts, whatever the others were.
"""

from __future__ import annotations

import json
import re
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

Row = tuple[int, int, int, int]
"""An event of a sequence: timestamp_ms, item_id, action, surface."""


class UnreadableError(Exception):
    """A raw message that is no event and no forget request. The message says why."""


def read_message(value: bytes | None, arrived_ms: int, rules: ParserConfig) -> tuple[bytes, Row | None, int]:
    """(user, event or None, floor of a forget request or 0) of a raw message that arrived at `arrived_ms`.

    Raises:
        UnreadableError: it is neither.
    """
    content = _object(value)
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


# More digits than any number of ours has: out of every range, and int() would refuse thousands of them.
_TOO_LARGE = 1 << 200


def _integer(digits: str) -> int:
    return int(digits) if len(digits) < 60 else _TOO_LARGE


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")  # NaN, Infinity


_decode = json.JSONDecoder(parse_int=_integer, parse_constant=_no_json).decode
_HALF_A_PAIR = re.compile("[\ud800-\udfff]")


def _object(value: bytes | None) -> dict[str, Any]:
    if value is None or len(value) > MAX_MESSAGE_BYTES:
        raise UnreadableError("no value" if value is None else "too large")
    try:
        text = value.decode()
        content = _decode(text)
        # The escapes of half a surrogate pair are no text, also in a field that is ignored.
        half_a_pair = "\\u" in text and _HALF_A_PAIR.search(json.dumps(content, ensure_ascii=False))
    except (ValueError, RecursionError):
        raise UnreadableError("not JSON") from None
    if not isinstance(content, dict) or half_a_pair:
        raise UnreadableError("half a surrogate pair" if half_a_pair else "not an object")
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
