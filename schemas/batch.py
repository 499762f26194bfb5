"""The packed batch: what ingest writes to `engagement-batches`. One message holds events of many users of one partition.

Layout, little endian, version 1; n users, m records; columns, so that numpy reads it without a loop:

    offset  bytes
    0       4     magic "SLPB"
    4       1     version
    5       3     reserved: 0, and readers refuse anything else
    8       4     n, u32
    12      4     m, u32
    16      4     bytes of all keys together, u32
    20      4     CRC-32 (IEEE) of everything after it
    24      8 n   arrived_ms, i64: arrival (the broker's time) of the oldest raw message that this batch holds of the user
            8 n   forgotten_before_ms, i64: 0 = no forget request
            4 n   records of the user, u32; together m
            2 n   bytes of the user's key, u16; together the bytes of all keys
            k     keys, one after the other
            20 m  records (schemas.sequence.RECORD), user after user, sorted and distinct within a user
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.errors import BatchError
from schemas.sequence import RECORD, RECORD_BYTES, Records

MAGIC = b"SLPB"
VERSION = 1
_RESERVED = bytes(3)
_HEADER = struct.Struct("<4sB3sIIII")
HEADER_BYTES = _HEADER.size
_USER_BYTES = 8 + 8 + 4 + 2

assert HEADER_BYTES == 24


class Batch(NamedTuple):
    """A decoded batch of n users and m records.

    Attributes:
        users: n distinct keys, UTF-8.
        arrived_ms: `(n,)` i64, the arrival of the oldest raw message per user, Unix ms.
        forgotten_before_ms: `(n,)` i64, 0 where no forget request came.
        counts: `(n,)` u32, records per user.
        records: `(m,)` of RECORD, user after user.
    """

    users: list[bytes]
    arrived_ms: NDArray[np.int64]
    forgotten_before_ms: NDArray[np.int64]
    counts: NDArray[np.uint32]
    records: Records


def encode_batch(batch: Batch) -> bytes:
    keys = b"".join(batch.users)
    body = b"".join(
        (
            np.asarray(batch.arrived_ms, "<i8").tobytes(),
            np.asarray(batch.forgotten_before_ms, "<i8").tobytes(),
            np.asarray(batch.counts, "<u4").tobytes(),
            np.fromiter(map(len, batch.users), "<u2", len(batch.users)).tobytes(),
            keys,
            batch.records.tobytes(),
        )
    )
    return (
        _HEADER.pack(MAGIC, VERSION, _RESERVED, len(batch.users), len(batch.records), len(keys), zlib.crc32(body))
        + body
    )


def decode_batch(value: bytes, where: str = "batch") -> Batch:
    """Decode and verify a message. The arrays are read-only views of it.

    Raises:
        BatchError: truncated, damaged, inconsistent or of another version. `where` (topic, partition, offset) begins the message.
    """
    if len(value) < HEADER_BYTES:
        raise BatchError(f"{where}: {len(value)} bytes are too few for a batch, its header alone has {HEADER_BYTES}")
    magic, version, reserved, n, m, key_bytes, crc = _HEADER.unpack_from(value)
    if magic != MAGIC:
        raise BatchError(f"{where}: begins with {magic!r}, not {MAGIC!r}: this is no packed batch")
    if version != VERSION:
        raise BatchError(
            f"{where}: batch version {version}, this build reads {VERSION}: upgrade the sequence workers first"
        )
    expected = HEADER_BYTES + n * _USER_BYTES + key_bytes + m * RECORD_BYTES
    if len(value) != expected:
        raise BatchError(
            f"{where}: {len(value)} bytes, but its header speaks of {expected}: it is truncated or damaged"
        )
    if reserved != _RESERVED or zlib.crc32(memoryview(value)[HEADER_BYTES:]) != crc:
        raise BatchError(f"{where}: the checksum does not match: it is damaged")
    at = HEADER_BYTES
    arrived_ms = np.frombuffer(value, "<i8", n, at)
    forgotten_before_ms = np.frombuffer(value, "<i8", n, at := at + 8 * n)
    counts = np.frombuffer(value, "<u4", n, at := at + 8 * n)
    lengths = np.frombuffer(value, "<u2", n, at := at + 4 * n)
    at += 2 * n
    if int(counts.sum(dtype=np.int64)) != m or int(lengths.sum(dtype=np.int64)) != key_bytes:
        raise BatchError(
            f"{where}: its columns do not add up to {m} records and {key_bytes} bytes of keys: its writer is broken"
        )
    ends = (at + np.cumsum(lengths, dtype=np.int64)).tolist()
    users = [value[start:end] for start, end in zip([at, *ends], ends, strict=False)]
    records = np.frombuffer(value, RECORD, m, at + key_bytes)
    return Batch(users, arrived_ms, forgotten_before_ms, counts, records)
