"""One value of a log file -> what an event has there, or why not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from schemas.event import MAX_ITEM_BYTES, MAX_ITEM_ID, MAX_TIMESTAMP_MS, MAX_USER_BYTES, hash_item_id
from stream.columns import ItemIds, TimestampUnit

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
PER_MS = {"ms": 1, "us": 1_000, "ns": 1_000_000}
#: Longer digits are no number of ours, and int() of them is slow.
_MAX_DIGITS = 40


class BadValueError(Exception):
    """The message says what is wrong with the value; who reads values says where it stands."""


def read_user(value: object) -> str:
    """A user id: text, or an integer's digits."""
    return _text(_digits(value), "a user id", MAX_USER_BYTES)


def read_item(value: object, item_ids: ItemIds) -> int:
    """An item id, in [0, 2^63); text is hashed unless it is an integer's (ColumnMapping.item_ids)."""
    if item_ids == "string":
        value = _digits(value)
    elif isinstance(value, str):
        number = _integer(value)
        # `017` is a name of digits, not the text of 17, unless the log says that its ids are integers.
        if number is not None and (item_ids == "integer" or str(number) == value):
            value = number
        elif item_ids == "integer" and value:
            raise BadValueError(f"{shown(value)} is not an integer, and the mapping says that item ids are")
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value <= MAX_ITEM_ID:
            raise BadValueError(f"the item id {shown(value)} is not in [0, 2^63)")
        return value
    return hash_item_id(_text(value, "an item id", MAX_ITEM_BYTES))


def read_name(value: object) -> str:
    """An action or surface as a person writes it in a mapping: 5 and 5.0 are `5`."""
    if value is None or value == "":
        raise BadValueError("the value is missing")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def read_instant(value: object, unit: TimestampUnit) -> int:
    """Unix milliseconds of a timestamp. Microseconds and nanoseconds are cut off, fractions in other units rounded."""
    if value is None or value == "":
        raise BadValueError("the timestamp is missing")
    if unit == "iso":
        return _checked_instant(_iso_ms(value), value)
    number = _number(value)
    if isinstance(number, int):
        return _checked_instant(number * 1000 if unit == "s" else number // PER_MS[unit], value)
    scaled = number * 1000 if unit == "s" else number / PER_MS[unit]
    return _checked_instant(round(scaled) if abs(scaled) < 1e18 else 0, value)  # 0 for NaN too


def outside(value: object) -> str:
    """What is wrong with a timestamp out of range."""
    return f"the timestamp {shown(value)} is not between 1970 and 9999: is its unit right?"


def shown(value: object) -> str:
    """A value in a message: short, whatever it is."""
    if isinstance(value, int) and abs(value) >= 1 << 128:
        return "(a number of more than 38 digits)"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _digits(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _text(value: object, what: str, max_bytes: int) -> str:
    if value is None or value == "":
        raise BadValueError(f"{what} is missing")
    if not isinstance(value, str):
        raise BadValueError(f"{shown(value)} is not {what}: it must be text or an integer")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise BadValueError(f"{shown(value)} is not UTF-8") from None
    if size > max_bytes:
        raise BadValueError(f"{what} has {size} bytes of UTF-8, at most {max_bytes} are allowed")
    return value


def _integer(text: str) -> int | None:
    try:
        return int(text) if len(text) <= _MAX_DIGITS else None
    except ValueError:
        return None


def _number(value: object) -> int | float:
    if isinstance(value, str):
        number = _integer(value)
        if number is not None:
            return number
        try:
            return float(value)
        except ValueError:
            raise BadValueError(f"{shown(value)} is not a number: for text, the timestamp's unit is `iso`") from None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise BadValueError(f"{shown(value)} is not a timestamp")


def _iso_ms(value: object) -> int:
    if not isinstance(value, str):
        raise BadValueError(f"{shown(value)} is not ISO 8601 text, and the mapping says that timestamps are")
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        raise BadValueError(f"{shown(value)} is not ISO 8601, such as 2026-01-31T12:34:56.789Z") from None
    return ((instant if instant.tzinfo else instant.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND


def _checked_instant(timestamp_ms: int, value: object) -> int:
    if not 0 < timestamp_ms <= MAX_TIMESTAMP_MS:
        raise BadValueError(outside(value))
    return timestamp_ms
