"""The raw event: what producers write to `engagements`, as JSON, MessagePack, Avro or Protobuf (schemas/formats.py).

    {"user_id": "u-17", "item_id": 4711, "action": "save", "surface": "home", "timestamp_ms": 1767225600000}

`item_id` is an integer in [0, 2^63) or a string, which is hashed (`hash_item_id`). Unknown fields are ignored. A request to
forget a user goes to the same topic:

    {"forget_user": "u-17", "timestamp_ms": 1767225600000}

and removes what happened until `timestamp_ms`, whatever order messages arrive in. An event's identity is its content: sending it
twice, even in two formats, is the same as sending it once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Annotated, Literal, NamedTuple

import msgspec

from schemas.errors import EventError
from schemas.formats import BUILT_IN, ForgetRequest, Format, Read, readers
from schemas.vocabulary import OTHER, Vocabulary

MAX_USER_BYTES = 256
MAX_ITEM_BYTES = 512
MAX_NAME_CHARS = 64
#: A raw message longer than this is a dead letter before anything parses it.
MAX_MESSAGE_BYTES = 16 * 1024
MAX_ITEM_ID = (1 << 63) - 1
#: 9999-12-31: later times are mistakes in the unit (micro- or nanoseconds).
MAX_TIMESTAMP_MS = 253_402_300_799_999
#: How far a producer's clock may be ahead of the broker's.
DEFAULT_MAX_FUTURE_MS = 5 * 60 * 1000


class Event(NamedTuple):
    """A valid event: the user's key bytes and the fields of one record (schemas.sequence.RECORD)."""

    user: bytes
    timestamp_ms: int
    item_id: int
    action: int
    surface: int


class Forget(NamedTuple):
    """A valid forget request: everything of the user until `before_ms`, inclusive, goes."""

    user: bytes
    before_ms: int


def hash_item_id(item_id: str) -> int:
    """The 63-bit id of a string item id: BLAKE2b with an 8-byte digest over its UTF-8, little endian, the top bit cleared.

    Any language can compute it. Two of a billion items share an id with a chance of 5%; of ten million, 5e-6.
    """
    return int.from_bytes(blake2b(item_id.encode(), digest_size=8).digest(), "little") & MAX_ITEM_ID


class ParserConfig(msgspec.Struct, frozen=True):
    vocabulary: Vocabulary = Vocabulary()
    #: What becomes of an unknown action or surface: a dead letter, or code 0.
    unknown_names: Literal["reject", "other"] = "reject"
    max_future_ms: Annotated[int, msgspec.Meta(ge=0)] = DEFAULT_MAX_FUTURE_MS
    #: Events older than this are dead letters; 0 lets every age through. A forget request is never too old.
    max_age_ms: Annotated[int, msgspec.Meta(ge=0)] = 0
    #: Messages of other formats are dead letters.
    formats: tuple[Format, ...] = BUILT_IN


class Parser:
    """Turns raw messages into events. Pure, as far as `framed` is: the same bytes and arrival time give the same answer for ever.

    Args:
        framed: reads messages that a schema registry's client framed (stream.registry); without it they are not accepted.
    """

    def __init__(self, config: ParserConfig, framed: Read | None = None) -> None:
        self._unknown_names = config.unknown_names
        self._max_future_ms, self._max_age_ms = config.max_future_ms, config.max_age_ms
        self._actions = config.vocabulary.action_codes
        self._surfaces = config.vocabulary.surface_codes
        self._readers = readers(config.formats, framed)

    def parse(self, value: bytes | None, arrived_ms: int) -> Event | Forget:
        """Parse one raw message that arrived at `arrived_ms` (the broker's time, Unix milliseconds).

        Raises:
            EventError: with a reason code and what is wrong.
        """
        if value is None:
            raise EventError("null_value", "the message has no value; a forget request is an object with `forget_user`")
        if len(value) > MAX_MESSAGE_BYTES:
            raise EventError(
                "too_large", f"the message has {len(value)} bytes, at most {MAX_MESSAGE_BYTES} are allowed"
            )
        event = self._readers[value[:1]](value)
        timestamp_ms = event.timestamp_ms
        if not 0 < timestamp_ms <= arrived_ms + self._max_future_ms or timestamp_ms > MAX_TIMESTAMP_MS:
            raise _bad_timestamp(timestamp_ms, arrived_ms)
        if type(event) is ForgetRequest:  # isinstance takes a while with msgspec's classes
            return Forget(_checked_user(event.forget_user), timestamp_ms)
        if self._max_age_ms and timestamp_ms < arrived_ms - self._max_age_ms:
            raise EventError(
                "too_old", f"`timestamp_ms` is {arrived_ms - timestamp_ms} ms before the message's arrival"
            )
        item_id = event.item_id
        if isinstance(item_id, str):
            if not 0 < len(item_id.encode()) <= MAX_ITEM_BYTES:
                raise EventError("bad_item_id", f"a string `item_id` must have 1 to {MAX_ITEM_BYTES} bytes")
            item_id = hash_item_id(item_id)
        elif not 0 <= item_id <= MAX_ITEM_ID:
            raise EventError("bad_item_id", f"`item_id` {_shown(item_id)} is not in [0, 2^63)")
        user = event.user_id.encode()
        if not 0 < len(user) <= MAX_USER_BYTES:
            raise _bad_user(user)
        action, surface = self._actions.get(event.action), self._surfaces.get(event.surface)
        if action is None:
            action = self._other(self._actions, event.action, "action")
        if surface is None:
            surface = self._other(self._surfaces, event.surface, "surface")
        return Event(user, timestamp_ms, item_id, action, surface)

    def _other(self, codes: Mapping[str, int], name: str, field: Literal["action", "surface"]) -> int:
        if self._unknown_names == "other":
            return codes[OTHER]
        reason = "unknown_action" if field == "action" else "unknown_surface"
        raise EventError(reason, f"`{field}` {name[:MAX_NAME_CHARS]!r} is not one of {', '.join(codes)}")


def _bad_timestamp(timestamp_ms: int, arrived_ms: int) -> EventError:
    if not 0 < timestamp_ms <= MAX_TIMESTAMP_MS:
        return EventError(
            "bad_timestamp",
            f"`timestamp_ms` {_shown(timestamp_ms)} is not in (0, {MAX_TIMESTAMP_MS}]: is it in milliseconds?",
        )
    # It would stay the newest event of its user for ever.
    return EventError("in_the_future", f"`timestamp_ms` is {timestamp_ms - arrived_ms} ms after the message's arrival")


def _shown(number: int) -> str:
    """For messages: JSON integers may have thousands of digits."""
    return str(number) if abs(number) < 1 << 128 else "(a number of more than 38 digits)"


def _checked_user(user_id: str) -> bytes:
    user = user_id.encode()
    if not 0 < len(user) <= MAX_USER_BYTES:
        raise _bad_user(user)
    return user


def _bad_user(user: bytes) -> EventError:
    return EventError("bad_user_id", f"a user id must have 1 to {MAX_USER_BYTES} bytes of UTF-8, not {len(user)}")


Encoding = Literal["json", "msgpack"]

_ENCODE: Mapping[Encoding, Callable[[object], bytes]] = {
    "json": msgspec.json.Encoder().encode,
    "msgpack": msgspec.msgpack.Encoder().encode,
}


def encode_engagement(
    user_id: str,
    item_id: int | str,
    action: str,
    surface: str,
    timestamp_ms: int,
    encoding: Encoding = "json",
) -> bytes:
    """An event as a producer sends it. Nothing is checked: ingest does that."""
    return _ENCODE[encoding](
        {"user_id": user_id, "item_id": item_id, "action": action, "surface": surface, "timestamp_ms": timestamp_ms}
    )


def encode_forget(user_id: str, timestamp_ms: int, encoding: Encoding = "json") -> bytes:
    """A request to forget a user."""
    return _ENCODE[encoding]({"forget_user": user_id, "timestamp_ms": timestamp_ms})
