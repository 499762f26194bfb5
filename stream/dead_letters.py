"""Dead letters: messages that could not be read, as they came, with their provenance in headers.

Value and key are the raw bytes. The headers of schemas.names say where the message stood and what is wrong with it; headers that
it had itself follow behind a prefix. A batch of `engagement-batches` that cannot be decoded becomes a dead letter too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from schemas.errors import EventError
from schemas.names import (
    HEADER_ERROR,
    HEADER_MISSING_VALUE_BYTES,
    HEADER_OFFSET,
    HEADER_ORIGINAL_PREFIX,
    HEADER_PARTITION,
    HEADER_REASON,
    HEADER_REPLAYS,
    HEADER_TIMESTAMP_MS,
    HEADER_TOPIC,
)

#: Reason of a packed batch that cannot be decoded. Those of raw messages are EventError.REASONS.
BAD_BATCH = "bad_batch"
#: Reason of a changelog record that cannot be decoded.
BAD_SEQUENCE = "bad_sequence"
REASONS = EventError.REASONS | {BAD_BATCH, BAD_SEQUENCE}

MAX_ERROR_BYTES = 1000
#: As confluent-kafka takes and gives them.
Headers = list[tuple[str, str | bytes | None]]


class Provenance(NamedTuple):
    """Where a message stood. `timestamp_ms` is Kafka's, Unix ms."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int

    def __str__(self) -> str:
        return f"topic {self.topic}, partition {self.partition}, offset {self.offset}"


class DeadLetterHeaders(NamedTuple):
    """What the headers of a dead letter say.

    Attributes:
        original: the headers of the message itself.
        missing_value_bytes: of a value that was too large for the dead letters topic; it still stands where `provenance` says.
    """

    reason: str
    error: str
    provenance: Provenance
    original: Headers
    missing_value_bytes: int | None = None

    @property
    def replays(self) -> int:
        """How often the message had been replayed when it became this letter."""
        return _replays(self.original)


def dead_letter_headers(
    reason: str, error: str, provenance: Provenance, original: Iterable[tuple[str, str | bytes | None]] = ()
) -> Headers:
    """The headers of a dead letter. `original` are those of the message itself."""
    ours: Headers = [
        (HEADER_REASON, reason.encode()),
        (HEADER_ERROR, error.encode(errors="replace")[:MAX_ERROR_BYTES]),
        (HEADER_TOPIC, provenance.topic.encode()),
        (HEADER_PARTITION, b"%d" % provenance.partition),
        (HEADER_OFFSET, b"%d" % provenance.offset),
        (HEADER_TIMESTAMP_MS, b"%d" % provenance.timestamp_ms),
    ]
    return ours + [(HEADER_ORIGINAL_PREFIX + name, value) for name, value in original]


def without_value(headers: Headers, size_bytes: int) -> Headers:
    """Headers for a message that is too large for the dead letters topic: they point to where it still is."""
    note = f" [{size_bytes} bytes, too large for this topic's max.message.bytes: read it at the place named here] ".encode()
    bare: Headers = [
        (name, note + value if name == HEADER_ERROR and isinstance(value, bytes) else value)
        for name, value in headers
        if not name.startswith(HEADER_ORIGINAL_PREFIX)
    ]
    return [*bare, (HEADER_MISSING_VALUE_BYTES, b"%d" % size_bytes)]


def replay_headers(original: Headers) -> Headers:
    """The headers with which a message is sent again: its own, and how often that was done."""
    kept = [(name, value) for name, value in original if name != HEADER_REPLAYS]
    return [*kept, (HEADER_REPLAYS, b"%d" % (_replays(original) + 1))]


def _replays(original: Headers) -> int:
    for name, value in original:
        if name == HEADER_REPLAYS and isinstance(value, bytes) and value.isdigit() and len(value) < 10:
            return int(value)
    return 0


def read_dead_letter_headers(headers: Iterable[tuple[str, str | bytes | None]]) -> DeadLetterHeaders | None:
    """The inverse of `dead_letter_headers`; None if they are no dead letter's."""
    found: dict[str, bytes] = {}
    original: Headers = []
    for name, value in headers:
        if name.startswith(HEADER_ORIGINAL_PREFIX):
            original.append((name.removeprefix(HEADER_ORIGINAL_PREFIX), value))
        elif isinstance(value, bytes):
            found.setdefault(name, value)
    try:
        provenance = Provenance(
            found[HEADER_TOPIC].decode(),
            int(found[HEADER_PARTITION]),
            int(found[HEADER_OFFSET]),
            int(found[HEADER_TIMESTAMP_MS]),
        )
        missing = found.get(HEADER_MISSING_VALUE_BYTES)
        return DeadLetterHeaders(
            found[HEADER_REASON].decode(),
            found[HEADER_ERROR].decode(errors="replace"),
            provenance,
            original,
            None if missing is None else int(missing),
        )
    except (KeyError, ValueError):  # UnicodeDecodeError is a ValueError
        return None
