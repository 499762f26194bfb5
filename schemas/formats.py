"""The formats of a raw message: bytes in, the fields that a producer wrote out. What they mean is schemas/event.py's.

    first byte           format
    00, 01               framed by a schema registry's client (Avro, Protobuf): 00 and an id of 4 bytes, or 01 and a GUID of 16
    80 to 8f, de, df     MessagePack, a map
    any other            JSON, an object: `{`, or white space before it

So every message says what it is, and one topic can hold all formats. The fields are the same in each, and so is how strictly they
are read: text is UTF-8, an integer is no float and no text, fields that nobody asked for may be anything that is well formed.

Containers may be nested `MAX_DEPTH` deep. A decoder that recurses would take what the stack has room for, so that a message would
be an event for one caller and none for another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal, final, get_args

import msgspec

from schemas.errors import EventError

Format = Literal["json", "msgpack", "avro", "protobuf"]
FORMATS: tuple[Format, ...] = get_args(Format)
#: Formats that need no registry.
BUILT_IN: tuple[Format, ...] = ("json", "msgpack")
FRAMED: tuple[Format, ...] = ("avro", "protobuf")
#: Arrays and objects inside each other, at most, the message's own object among them.
MAX_DEPTH = 64


class Engagement(msgspec.Struct, frozen=True, gc=False):
    """The object of an engagement event. Lengths and ranges are checked by schemas.event.Parser."""

    user_id: str
    item_id: int | str
    action: str
    surface: str
    timestamp_ms: int
    #: Present only so that a forget request with an event's fields beside it is not taken for an event.
    forget_user: None = None


@final
class ForgetRequest(msgspec.Struct, frozen=True, gc=False):
    """The object of a request to forget a user."""

    forget_user: str
    timestamp_ms: int


class _BareEngagement(Engagement, frozen=True, gc=False, forbid_unknown_fields=True):
    """An event with no other fields: then the decoder has looked at every byte."""


Read = Callable[[bytes], Engagement | ForgetRequest]
"""Reads a message of one format. Raises EventError."""


def readers(formats: Sequence[Format], framed: Read | None = None) -> Mapping[bytes, Read]:
    """First byte (none of an empty message) -> what reads such a message, or refuses it because its format is not accepted.

    Args:
        formats: those that are accepted.
        framed: reads messages that a registry's client framed; it knows itself which of their formats are accepted.
    """
    read_json = JsonReader().read if "json" in formats else _refuse("JSON (or nothing that we know)", formats)
    read_msgpack = MsgpackReader().read if "msgpack" in formats else _refuse("MessagePack", formats)
    read_framed = framed or _refuse("framed by a schema registry's client", formats)
    by_first = {b"": read_json} | {bytes([first]): read_json for first in range(256)}
    by_first |= {bytes([first]): read_msgpack for first in (*range(0x80, 0x90), 0xDE, 0xDF)}
    return by_first | {b"\x00": read_framed, b"\x01": read_framed}


def _refuse(what: str, formats: Sequence[Format]) -> Read:
    def refuse(value: bytes) -> Engagement:
        begins = f"begins with 0x{value[0]:02x}" if value else "is empty"
        raise EventError(
            "format_not_accepted", f"the message {begins}: it is {what}; accepted is {', '.join(formats)} (`formats`)"
        )

    return refuse


#: What msgspec raises on bytes that are not of the format. Its ValidationError is a DecodeError too: catch that one first.
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError)


#: A shorter text that is nested too deeply lacks closing brackets, so it is no JSON.
_NEVER_TOO_DEEP_BYTES = 2 * MAX_DEPTH + 1


class JsonReader:
    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(Engagement).decode
        self._decode_forget = msgspec.json.Decoder(ForgetRequest).decode

    def read(self, value: bytes) -> Engagement | ForgetRequest:
        """Raises:
        EventError: `not_json`, `too_deep`, `wrong_shape`.
        """
        if len(value) > _NEVER_TOO_DEEP_BYTES and value.count(b"[") + value.count(b"{") > MAX_DEPTH:
            _check_json_depth(value)
        try:
            if not value.isascii():
                value.decode()  # msgspec does not look into fields that it skips, and whether it skips one depends on their order
            return self._decode(value)
        except msgspec.ValidationError as error:
            return _forget(value, self._decode_forget, error, "JSON", "not_json")
        except _MALFORMED as error:
            raise EventError("not_json", f"the message is not JSON: {error}") from None


class MsgpackReader:
    def __init__(self) -> None:
        self._decode_bare = msgspec.msgpack.Decoder(_BareEngagement).decode
        self._decode = msgspec.msgpack.Decoder(Engagement).decode
        self._decode_forget = msgspec.msgpack.Decoder(ForgetRequest).decode

    def read(self, value: bytes) -> Engagement | ForgetRequest:
        """Raises:
        EventError: `not_msgpack`, `too_deep`, `wrong_shape`.
        """
        try:
            try:
                return self._decode_bare(value)
            except msgspec.ValidationError:
                check_msgpack(value)  # the decoders do not look into what they skip
                return self._decode(value)
        except msgspec.ValidationError as error:
            return _forget(value, self._decode_forget, error, "MessagePack", "not_msgpack")
        except _MALFORMED as error:
            raise EventError("not_msgpack", f"the message is not MessagePack: {error}") from None


def from_fields(fields: object, name: str) -> Engagement | ForgetRequest:
    """The event or request of a decoded object, for decoders that are not here.

    Args:
        fields: field -> value of Python's own types.
        name: of the format, for messages.

    Raises:
        EventError: `wrong_shape`.
    """
    try:
        return msgspec.convert(fields, Engagement)
    except msgspec.ValidationError as error:
        marker = b"forget_user" if isinstance(fields, Mapping) and fields.get("forget_user") is not None else b""
        return _forget(marker, lambda _: msgspec.convert(fields, ForgetRequest), error, name, "wrong_shape")


def _forget(
    value: bytes,
    decode: Callable[[Any], ForgetRequest],
    event_error: msgspec.ValidationError,
    name: str,
    malformed: str,
) -> ForgetRequest:
    try:
        return decode(value)
    except msgspec.ValidationError as error:
        wrong = error if b"forget_user" in value else event_error
        raise EventError(
            "wrong_shape", f"the message is {name}, but neither an event nor a forget request: {wrong}"
        ) from None
    except _MALFORMED as error:  # the event's decoder had stopped at a wrong field, before what is malformed
        raise EventError(malformed, f"the message is not {name}: {error}") from None


def _too_deep() -> EventError:
    return EventError("too_deep", f"the message has more than {MAX_DEPTH} arrays and objects inside each other")


_JSON_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def _check_json_depth(value: bytes) -> None:
    brackets = _JSON_STRING.sub(b"", value).translate(None, _NO_BRACKETS)
    depth = max(accumulate(1 if bracket in b"[{" else -1 for bracket in brackets), default=0)
    if depth > MAX_DEPTH:
        raise _too_deep()


# MessagePack's headers (https://github.com/msgpack/msgpack/blob/master/spec.md).
_BYTES, _TEXT, _ITEMS, _PAIRS = range(4)
_Header = tuple[int, int, int]
"""What follows it, the bytes of its length, and what is added to that length."""


def _headers() -> list[_Header | None]:
    headers: list[_Header | None] = [(_BYTES, 0, 0)] * 256  # the small integers, nil, false and true
    headers[0x80:0x90] = [(_PAIRS, 0, n) for n in range(16)]
    headers[0x90:0xA0] = [(_ITEMS, 0, n) for n in range(16)]
    headers[0xA0:0xC0] = [(_TEXT, 0, n) for n in range(32)]
    headers[0xC1] = None  # never used
    headers[0xC4:0xC7] = [(_BYTES, n, 0) for n in (1, 2, 4)]  # bin
    headers[0xC7:0xCA] = [(_BYTES, n, 1) for n in (1, 2, 4)]  # ext: a byte for its type
    headers[0xCA:0xD4] = [(_BYTES, 0, n) for n in (4, 8, 1, 2, 4, 8, 1, 2, 4, 8)]  # floats, unsigned, signed
    headers[0xD4:0xD9] = [(_BYTES, 0, n + 1) for n in (1, 2, 4, 8, 16)]  # fixext
    headers[0xD9:0xDC] = [(_TEXT, n, 0) for n in (1, 2, 4)]
    headers[0xDC:0xDE] = [(_ITEMS, n, 0) for n in (2, 4)]
    headers[0xDE:0xE0] = [(_PAIRS, n, 0) for n in (2, 4)]
    return headers


_HEADERS = _headers()


_NO_CONTAINERS = bytes(set(range(256)) - {*range(0x80, 0xA0), *range(0xDC, 0xE0)})
_decode_anything = msgspec.msgpack.Decoder().decode


def check_msgpack(value: bytes) -> None:
    """Look at all of a message: it is one object, its text is UTF-8, and it is not nested too deeply.

    Raises:
        EventError: `not_msgpack`, `too_deep`.
    """
    # With so few bytes that could begin a container it is not too deep for a decoder that recurses, which is much faster.
    if len(value.translate(None, _NO_CONTAINERS)) <= MAX_DEPTH:
        try:
            _decode_anything(value)
            return
        except (ValueError, TypeError, OverflowError):  # also for what is well formed, but nothing of Python's
            pass
    walk_msgpack(value)


def walk_msgpack(value: bytes) -> None:
    """`check_msgpack` by the specification alone."""
    at = 0
    missing = [1]  # of each container around this place, outermost first: how many objects are still to come
    while missing:
        if not missing[-1]:
            missing.pop()
            continue
        missing[-1] -= 1
        header = _HEADERS[value[at]] if at < len(value) else (_BYTES, 0, 1)  # cut off: it ends behind the message
        if header is None:
            raise EventError("not_msgpack", f"the message is not MessagePack: 0xc1 at byte {at}")
        what, length_bytes, length = header
        start = at + 1 + length_bytes
        length += int.from_bytes(value[at + 1 : start])
        if what in (_ITEMS, _PAIRS):
            missing.append(length if what == _ITEMS else 2 * length)
            if len(missing) > MAX_DEPTH + 1:
                raise _too_deep()
            length = 0
        at = start + length
        if at > len(value):
            raise EventError("not_msgpack", "the message is not MessagePack: it is truncated")
        if what == _TEXT:
            value[start:at].decode()
    if at < len(value):
        raise EventError("not_msgpack", f"the message is not MessagePack: {len(value) - at} bytes follow the object")
