"""The raw event: what producers write to `engagements`, as JSON.

    {"user_id": "u-17", "item_id": 4711, "action": "save", "surface": "home", "timestamp_ms": 1767225600000}

`item_id` is an integer in [0, 2^63) or a string, which is hashed (`hash_item_id`). Unknown fields are ignored. A request to
forget a user goes to the same topic:

    {"forget_user": "u-17", "timestamp_ms": 1767225600000}

and removes what happened until `timestamp_ms`, whatever order messages arrive in. An event's identity is its content: sending it
twice is the same as sending it once.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Annotated, Literal, NamedTuple

import msgspec

from schemas.errors import EventError
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

#: What msgspec raises on bytes that are no JSON, too deeply nested ones among them. Its ValidationError is a DecodeError too:
#: catch that one first.
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Engagement(msgspec.Struct, frozen=True, gc=False):
    """The JSON object of an engagement event. Lengths of strings are checked in bytes by `Parser`."""

    user_id: str
    item_id: int | str
    action: str
    surface: str
    timestamp_ms: int
    #: Present only so that a forget request with an event's fields beside it is not taken for an event.
    forget_user: None = None


class ForgetRequest(msgspec.Struct, frozen=True, gc=False):
    """The JSON object of a request to forget a user."""

    forget_user: str
    timestamp_ms: int


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


class Parser:
    """Turns raw messages into events. Pure: the same bytes and arrival time give the same answer for ever."""

    def __init__(self, config: ParserConfig) -> None:
        self._config = config
        self._actions = config.vocabulary.action_codes
        self._surfaces = config.vocabulary.surface_codes
        self._decode = msgspec.json.Decoder(Engagement).decode
        self._decode_forget = msgspec.json.Decoder(ForgetRequest).decode

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
        try:
            if not value.isascii():
                value.decode()  # msgspec does not look into fields that it skips, and whether it skips one depends on their order
            event = self._decode(value)
        except msgspec.ValidationError as error:
            return self._forget_or_raise(value, arrived_ms, error)
        except _NOT_JSON as error:
            raise EventError("not_json", f"the message is not JSON: {error}") from None
        timestamp_ms = self._checked_timestamp(event.timestamp_ms, arrived_ms)
        if self._config.max_age_ms and timestamp_ms < arrived_ms - self._config.max_age_ms:
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
        return Event(
            _checked_user(event.user_id),
            timestamp_ms,
            item_id,
            self._code(self._actions, event.action, "action"),
            self._code(self._surfaces, event.surface, "surface"),
        )

    def _forget_or_raise(self, value: bytes, arrived_ms: int, event_error: msgspec.ValidationError) -> Forget:
        try:
            request = self._decode_forget(value)
        except msgspec.ValidationError as error:
            wrong = error if b'"forget_user"' in value else event_error
            raise EventError(
                "wrong_shape", f"the message is JSON, but neither an event nor a forget request: {wrong}"
            ) from None
        except _NOT_JSON as error:  # the event's decoder had stopped at a wrong field, before what is not JSON
            raise EventError("not_json", f"the message is not JSON: {error}") from None
        return Forget(_checked_user(request.forget_user), self._checked_timestamp(request.timestamp_ms, arrived_ms))

    def _checked_timestamp(self, timestamp_ms: int, arrived_ms: int) -> int:
        if not 0 < timestamp_ms <= MAX_TIMESTAMP_MS:
            raise EventError(
                "bad_timestamp",
                f"`timestamp_ms` {_shown(timestamp_ms)} is not in (0, {MAX_TIMESTAMP_MS}]: is it in milliseconds?",
            )
        if timestamp_ms > arrived_ms + self._config.max_future_ms:
            # It would stay the newest event of its user for ever.
            raise EventError(
                "in_the_future", f"`timestamp_ms` is {timestamp_ms - arrived_ms} ms after the message's arrival"
            )
        return timestamp_ms

    def _code(self, codes: Mapping[str, int], name: str, field: Literal["action", "surface"]) -> int:
        code = codes.get(name)
        if code is None:
            if self._config.unknown_names == "other":
                return codes[OTHER]
            reason = "unknown_action" if field == "action" else "unknown_surface"
            raise EventError(reason, f"`{field}` {name[:MAX_NAME_CHARS]!r} is not one of {', '.join(codes)}")
        return code


def _shown(number: int) -> str:
    """For messages: JSON integers may have thousands of digits."""
    return str(number) if abs(number) < 1 << 128 else "(a number of more than 38 digits)"


def _checked_user(user_id: str) -> bytes:
    user = user_id.encode()
    if not 0 < len(user) <= MAX_USER_BYTES:
        raise EventError("bad_user_id", f"a user id must have 1 to {MAX_USER_BYTES} bytes of UTF-8, not {len(user)}")
    return user


_encode = msgspec.json.Encoder().encode


def encode_engagement(user_id: str, item_id: int | str, action: str, surface: str, timestamp_ms: int) -> bytes:
    """The JSON of an event, as a producer sends it. Nothing is checked: ingest does that."""
    return _encode(
        {"user_id": user_id, "item_id": item_id, "action": action, "surface": surface, "timestamp_ms": timestamp_ms}
    )


def encode_forget(user_id: str, timestamp_ms: int) -> bytes:
    """The JSON of a request to forget a user."""
    return _encode({"forget_user": user_id, "timestamp_ms": timestamp_ms})
