"""The sequence: a user's newest events. The value of the compacted changelog `sequences`; the key is the user id in UTF-8.

Layout, little endian, version 1:

    offset  bytes
    0       2     magic "SQ"
    2       1     version
    3       1     reserved: 0, and readers refuse anything else
    4       4     CRC-32 (IEEE) of everything after it
    8       8     forgotten_before_ms, i64: events until then, inclusive, are forgotten; 0 = none ever was
    16      20 n  records: sorted by (timestamp_ms, item_id, action, surface), distinct, all later than forgotten_before_ms

A record is `timestamp_ms i64, item_id i64, action u16, surface u16`.

`merge` keeps the newest `capacity` of the union of two sequences' records that are later than both floors. It is commutative,
associative and idempotent, so duplicates, replays and any order of arrival give the same bytes. Forgetting a user is a merge
too, with a raised floor and no records: it needs no order either, and a late duplicate of a forgotten event stays forgotten.
A sequence without records, like a tombstone, tells readers downstream to delete what they hold of the user.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.errors import SequenceError

RECORD = np.dtype([("timestamp_ms", "<i8"), ("item_id", "<i8"), ("action", "<u2"), ("surface", "<u2")])
RECORD_BYTES = RECORD.itemsize
Records = NDArray[np.void]

MAGIC = b"SQ"
VERSION = 1
DEFAULT_CAPACITY = 256
_HEADER = struct.Struct("<2sBBIq")
HEADER_BYTES = _HEADER.size
_FLOOR = struct.Struct("<q")
NO_RECORDS: Records = np.empty(0, RECORD)

assert RECORD_BYTES == 20
assert HEADER_BYTES == 16


class Sequence(NamedTuple):
    """A decoded sequence.

    Attributes:
        forgotten_before_ms: the floor; no record is at or before it.
        records: `(n,)` of RECORD, sorted, distinct.
    """

    forgotten_before_ms: int
    records: Records


EMPTY = Sequence(0, NO_RECORDS)


def encode_sequence(sequence: Sequence) -> bytes:
    """The value's bytes. The records must be sorted and distinct, as `merge` returns them."""
    return pack_sequence(sequence.forgotten_before_ms, sequence.records.tobytes())


def pack_sequence(forgotten_before_ms: int, records: bytes) -> bytes:
    """The value's bytes, from records that are bytes already: sorted and distinct."""
    crc = zlib.crc32(records, zlib.crc32(_FLOOR.pack(forgotten_before_ms)))
    return _HEADER.pack(MAGIC, VERSION, 0, crc, forgotten_before_ms) + records


def floor_of(value: bytes) -> int:
    """`forgotten_before_ms` of a valid value, without decoding it."""
    floor: int = _FLOOR.unpack_from(value, HEADER_BYTES - _FLOOR.size)[0]
    return floor


def newest_ms_of(value: bytes) -> int:
    """The time of a valid value's last record, without decoding it; the floor if it has none: everything later is news."""
    if len(value) == HEADER_BYTES:
        return floor_of(value)
    newest: int = _FLOOR.unpack_from(value, len(value) - RECORD_BYTES)[0]
    return newest


def decode_sequence(value: bytes, where: str = "sequence") -> Sequence:
    """Decode and verify a value. The records are a read-only view of it.

    Raises:
        SequenceError: truncated, damaged, or of another version. `where` (topic, partition, offset, user) begins the message.
    """
    return Sequence(verify_sequence(value, where), np.frombuffer(value, RECORD, offset=HEADER_BYTES))


def verify_sequence(value: bytes, where: str = "sequence") -> int:
    """Verify a value without decoding its records; its floor.

    Raises:
        SequenceError: as `decode_sequence` does.
    """
    if len(value) < HEADER_BYTES:
        raise SequenceError(
            f"{where}: {len(value)} bytes are too few for a sequence, its header alone has {HEADER_BYTES}"
        )
    magic, version, reserved, crc, floor = _HEADER.unpack_from(value)
    if magic != MAGIC:
        raise SequenceError(f"{where}: does not begin with {MAGIC!r}: this is no sequence")
    if version != VERSION:
        raise SequenceError(f"{where}: sequence version {version}, this build reads {VERSION}: upgrade it")
    if (len(value) - HEADER_BYTES) % RECORD_BYTES:
        raise SequenceError(
            f"{where}: {len(value)} bytes are no whole number of {RECORD_BYTES}-byte records: it is truncated"
        )
    if reserved or zlib.crc32(memoryview(value)[8:]) != crc:
        raise SequenceError(f"{where}: the checksum does not match: it is damaged")
    return int(floor)


def is_of_another_version(value: bytes) -> bool:
    """Whether a value that cannot be read is a sequence of another build: not to be skipped, nor to be written over."""
    return len(value) > 2 and value[: len(MAGIC)] == MAGIC and value[2] != VERSION


def sort_records(records: Records) -> Records:
    """Sorted by all four fields, distinct. `(n,)` of RECORD -> `(m,)`, m <= n."""
    if len(records) < 2:
        return records
    order = np.lexsort((records["surface"], records["action"], records["item_id"], records["timestamp_ms"]))
    ordered = records[order]
    packed = np.ascontiguousarray(ordered).view(np.dtype((np.void, RECORD_BYTES)))
    distinct = np.empty(len(packed), bool)
    distinct[0] = True
    distinct[1:] = packed[1:] != packed[:-1]  # the ufunc not_equal has no loop for void
    return ordered if distinct.all() else ordered[distinct]


def merge(a: Sequence, b: Sequence, capacity: int = DEFAULT_CAPACITY) -> Sequence:
    """The newest `capacity` records of the union that are later than both floors. `b`'s records may be in any order."""
    floor = max(a.forgotten_before_ms, b.forgotten_before_ms)
    records = sort_records(np.concatenate([a.records, b.records]))
    if floor:
        records = records[np.searchsorted(records["timestamp_ms"], floor, side="right") :]
    return Sequence(floor, records[-capacity:])
