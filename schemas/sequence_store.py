"""What a RocksDB database of a sequence worker holds: one partition of the changelog, and up to where.

    key                 value
    user id in UTF-8    the user's sequence, as in the changelog (schemas.sequence)
    FF 'm' user id      a forgotten user's marker: when the changelog's record was written, i64 milliseconds
    FF 'k'              what is kept, below

No UTF-8 text has a byte FF, so no user can be taken for one of the store's own keys.

What is kept, little endian, version 1:

    offset  bytes
    0       2     magic "SK"
    2       1     version
    3       1     version of the sequences (schemas.sequence)
    4       16    topic id of the changelog: a topic that is deleted and made again has another
    20      4     partition, u32
    24      8     next_offset, i64: every record of the changelog before it is in the database
    32      8     as_of_ms, i64: no record at next_offset or later was written before
    40      4     CRC-32 (IEEE) of everything before it

It is written in the same batch as the sequences, after their transaction is committed: a database may be behind the changelog,
never ahead of it.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from schemas.errors import SequenceError
from schemas.sequence import VERSION as SEQUENCE_VERSION

#: Begins the store's own keys.
OWN = b"\xff"
KEPT_KEY = OWN + b"k"
MARKER_PREFIX = OWN + b"m"
MAGIC = b"SK"
VERSION = 1
_KEPT = struct.Struct("<2sBB16sIqqI")
_CHECKSUM = struct.Struct("<I")
KEPT_BYTES = _KEPT.size
MARKED = struct.Struct("<q")

assert KEPT_BYTES == 44


class Kept(NamedTuple):
    """What a database is of, and up to where."""

    topic_id: bytes
    partition: int
    next_offset: int
    as_of_ms: int


def encode_kept(kept: Kept) -> bytes:
    body = _KEPT.pack(
        MAGIC, VERSION, SEQUENCE_VERSION, kept.topic_id, kept.partition, kept.next_offset, kept.as_of_ms, 0
    )[: -_CHECKSUM.size]
    return body + _CHECKSUM.pack(zlib.crc32(body))


def decode_kept(value: bytes) -> Kept:
    """Decode and verify.

    Raises:
        SequenceError: damaged, or of another version of the database or of the sequences.
    """
    if value[:2] != MAGIC or len(value) < 4:
        raise SequenceError(f"its kept offset begins with {value[:2]!r}, not {MAGIC!r}")
    if value[2] != VERSION:
        raise SequenceError(f"its layout has version {value[2]}, this build's has {VERSION}")
    if value[3] != SEQUENCE_VERSION:
        raise SequenceError(f"its sequences have version {value[3]}, this build's have {SEQUENCE_VERSION}")
    if len(value) != KEPT_BYTES or zlib.crc32(value[: -_CHECKSUM.size]) != _CHECKSUM.unpack(value[-4:])[0]:
        raise SequenceError("its kept offset does not match its checksum")
    _, _, _, topic_id, partition, next_offset, as_of_ms, _ = _KEPT.unpack(value)
    return Kept(topic_id, partition, next_offset, as_of_ms)
