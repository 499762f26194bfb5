"""The oracle's own decoding of raw messages: JSON by the standard library, MessagePack by the page of its specification.

JSON and MessagePack leave open what an object with the same name twice means: here the last one counts, whatever the others were.
"""

from __future__ import annotations

import json
import re
import struct
from typing import Any

from schemas.formats import MAX_DEPTH


class UnreadableError(Exception):
    """A raw message that is no event and no forget request. The message says why."""


def read_json(value: bytes) -> object:
    """Raises UnreadableError."""
    if value.count(b"[") + value.count(b"{") > MAX_DEPTH and _json_depth(value) > MAX_DEPTH:
        raise UnreadableError("nested too deeply")
    try:
        text = value.decode()
        content = _decode(text)
        # The escapes of half a surrogate pair are no text, also in a field that is ignored.
        half_a_pair = "\\u" in text and _HALF_A_PAIR.search(json.dumps(content, ensure_ascii=False))
    except ValueError:
        raise UnreadableError("not JSON") from None
    if half_a_pair:
        raise UnreadableError("half a surrogate pair")
    return content


# More digits than any number of ours has: out of every range, and int() would refuse thousands of them.
_TOO_LARGE = 1 << 200


def _integer(digits: str) -> int:
    return int(digits) if len(digits) < 60 else _TOO_LARGE


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")  # NaN, Infinity


_decode = json.JSONDecoder(parse_int=_integer, parse_constant=_no_json).decode
_HALF_A_PAIR = re.compile("[\ud800-\udfff]")


def _json_depth(value: bytes) -> int:
    depth = deepest = 0
    in_string = escaped = False
    for character in value.decode("latin-1"):
        if in_string:
            in_string, escaped = escaped or character != '"', not escaped and character == "\\"
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def read_msgpack(value: bytes) -> object:
    """Raises UnreadableError."""
    try:
        content, end = _object(value, 0, 0)
    except (IndexError, struct.error, UnicodeDecodeError):
        raise UnreadableError("not MessagePack") from None
    if end != len(value):
        raise UnreadableError("bytes after the object")
    return content


_NUMBERS = {tag: ">" + code for tag, code in zip(range(0xCA, 0xD4), "fdBHIQbhiq", strict=True)}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_LENGTHS = {1: ">B", 2: ">H", 4: ">I"}


class Opaque(bytes):
    """bin and ext: no field of an event may be one."""


def _object(value: bytes, at: int, depth: int) -> tuple[Any, int]:
    """The object that begins at `at`, and where it ends. `depth`: containers around it."""
    tag, at = value[at], at + 1
    if tag <= 0x7F:
        return tag, at
    if tag >= 0xE0:
        return tag - 0x100, at
    if tag <= 0x8F:
        return _map(value, at, tag & 0x0F, depth)
    if tag <= 0x9F:
        return _array(value, at, tag & 0x0F, depth)
    if tag <= 0xBF:
        return _text(value, at, tag & 0x1F)
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], at
    if tag in _NUMBERS:
        return _number(value, at, _NUMBERS[tag])
    if 0xD4 <= tag <= 0xD8:  # fixext 1, 2, 4, 8, 16
        return _opaque(value, at, 1 + (1 << (tag - 0xD4)))
    width = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}.get(tag)
    width = width or {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}.get(tag)
    if width is None:
        raise UnreadableError(f"0x{tag:02x} is no MessagePack")
    length, at = _number(value, at, _LENGTHS[width])
    if tag <= 0xC6:
        return _opaque(value, at, length)
    if tag <= 0xC9:
        return _opaque(value, at, 1 + length)
    if tag <= 0xDB:
        return _text(value, at, length)
    return (_array if tag <= 0xDD else _map)(value, at, length, depth)


def _number(value: bytes, at: int, code: str) -> tuple[Any, int]:
    return struct.unpack_from(code, value, at)[0], at + struct.calcsize(code)


def _opaque(value: bytes, at: int, length: int) -> tuple[Opaque, int]:
    if at + length > len(value):
        raise UnreadableError("truncated")
    return Opaque(value[at : at + length]), at + length


def _text(value: bytes, at: int, length: int) -> tuple[str, int]:
    content, end = _opaque(value, at, length)
    return content.decode(), end


def _array(value: bytes, at: int, length: int, depth: int) -> tuple[list[Any], int]:
    if depth == MAX_DEPTH:
        raise UnreadableError("nested too deeply")
    items = []
    for _ in range(length):
        item, at = _object(value, at, depth + 1)
        items.append(item)
    return items, at


def _map(value: bytes, at: int, length: int, depth: int) -> tuple[object, int]:
    """A dict; of the message's own object all names must be text, and inner ones, which no field may be, are lists of pairs."""
    if depth == MAX_DEPTH:
        raise UnreadableError("nested too deeply")
    pairs = []
    for _ in range(length):
        key, at = _object(value, at, depth + 1)
        content, at = _object(value, at, depth + 1)
        pairs.append((key, content))
    if depth:
        return pairs, at
    if not all(isinstance(key, str) for key, _ in pairs):
        raise UnreadableError("a field's name is not text")
    return dict(pairs), at
