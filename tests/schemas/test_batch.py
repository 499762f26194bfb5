"""Batches: what goes in comes out, damage and inconsistent columns are refused."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.batch import HEADER_BYTES, Batch, decode_batch, encode_batch
from schemas.errors import BatchError
from schemas.sequence import RECORD
from tests.schemas.damage import assert_refused, flips, golden

WHERE = "slipstream.engagement-batches[0]@9"


def decode(value: bytes) -> Batch:
    return decode_batch(value, WHERE)


def resealed(value: bytes) -> bytes:
    """With the checksum that its bytes have: damage that a broken writer, not a broken wire, would make."""
    return value[:20] + struct.pack("<I", zlib.crc32(value[HEADER_BYTES:])) + value[HEADER_BYTES:]


def test_every_truncation_is_refused() -> None:
    value = golden("batch.bin")
    for length in range(len(value)):
        assert_refused(decode, value[:length], BatchError, f"{length} of {len(value)} bytes", WHERE)


def test_every_flipped_bit_is_refused() -> None:
    for byte, bit, damaged in flips(golden("batch.bin")):
        assert_refused(decode, damaged, BatchError, f"byte {byte}, bit {bit}", WHERE)


def test_bytes_behind_the_end_are_refused() -> None:
    assert_refused(decode, golden("batch.bin") + b"\0", BatchError, "one byte more", WHERE)


def test_another_version_is_named_with_what_to_do() -> None:
    value = bytearray(golden("batch.bin"))
    value[4] = 2
    with pytest.raises(BatchError, match="batch version 2, this build reads 1: upgrade the sequence workers first"):
        decode(bytes(value))


def test_columns_that_do_not_add_up_are_refused_though_the_checksum_is_right() -> None:
    value = golden("batch.bin")
    counts_at = HEADER_BYTES + 3 * 16
    lengths_at = counts_at + 3 * 4
    for at, what in ((counts_at, "a count"), (counts_at + 3, "a huge count"), (lengths_at, "a length of a key")):
        damaged = bytearray(value)
        damaged[at] += 1
        assert_refused(decode, resealed(bytes(damaged)), BatchError, what, WHERE)


def test_users_and_records_traded_for_each_other_are_refused() -> None:
    # A user has 22 bytes of columns and a record 20, so these have the right length: the columns' sums tell.
    n, m, key_bytes = struct.unpack_from("<III", golden("batch.bin"), 8)
    for n2, m2, key2 in ((n - 1, m + 1, key_bytes + 2), (n, m - 1, key_bytes + 20)):
        value = bytearray(golden("batch.bin"))
        struct.pack_into("<III", value, 8, n2, m2, key2)
        assert_refused(decode, bytes(value), BatchError, f"n {n2}, m {m2}, keys {key2}", WHERE)


user_st = st.tuples(
    st.binary(min_size=1, max_size=12),
    st.integers(0, 1 << 50),
    st.sampled_from([0, 0, 1767225600000]),
    st.lists(st.tuples(st.integers(1, 1 << 40), st.integers(0, (1 << 63) - 1), st.integers(0, 9), st.integers(0, 9)), max_size=5),
)  # fmt: skip


@given(st.lists(user_st, max_size=8, unique_by=lambda user: user[0]))
def test_what_goes_in_comes_out(users: list) -> None:
    batch = Batch(
        [key for key, *_ in users],
        np.array([arrived for _, arrived, _, _ in users], np.int64),
        np.array([floor for _, _, floor, _ in users], np.int64),
        np.array([len(records) for *_, records in users], np.uint32),
        np.array([record for *_, records in users for record in records], RECORD),
    )
    got = decode_batch(encode_batch(batch))
    assert got.users == batch.users
    for column in ("arrived_ms", "forgotten_before_ms", "counts", "records"):
        np.testing.assert_array_equal(getattr(got, column), getattr(batch, column))
