"""Sequences: damage is refused, and merge keeps its laws."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SequenceError
from schemas.sequence import (
    EMPTY,
    HEADER_BYTES,
    NO_RECORDS,
    RECORD,
    RECORD_BYTES,
    Sequence,
    decode_sequence,
    encode_sequence,
    merge,
    sort_records,
)
from tests.schemas.damage import assert_refused, flips, golden

WHERE = "slipstream.sequences[3]@77, user u-17"
NAMES = ["sequence.bin", "sequence-raised-floor.bin", "sequence-forgotten.bin"]
Fields = tuple[int, int, int, int]


def decode(value: bytes) -> Sequence:
    return decode_sequence(value, WHERE)


# Damage


@pytest.mark.parametrize("name", NAMES)
def test_every_truncation_is_refused(name: str) -> None:
    value = golden(name)
    for length in range(len(value)):
        assert_refused(decode, value[:length], SequenceError, f"{length} of {len(value)} bytes", WHERE)


@pytest.mark.parametrize("name", NAMES)
def test_every_flipped_bit_is_refused(name: str) -> None:
    for byte, bit, damaged in flips(golden(name)):
        assert_refused(decode, damaged, SequenceError, f"byte {byte}, bit {bit}", WHERE)


@pytest.mark.parametrize("extra", [b"\0", bytes(RECORD_BYTES), golden("sequence.bin")])
def test_bytes_behind_the_end_are_refused(extra: bytes) -> None:
    assert_refused(decode, golden("sequence.bin") + extra, SequenceError, f"{len(extra)} bytes more", WHERE)


def test_another_version_is_named() -> None:
    value = bytearray(golden("sequence.bin"))
    value[2] = 2
    with pytest.raises(SequenceError, match="sequence version 2, this build reads 1"):
        decode(bytes(value))


def test_another_kind_of_value_is_named() -> None:
    with pytest.raises(SequenceError, match="this is no sequence"):
        decode(golden("batch.bin"))


def test_decoded_records_cannot_be_written_to() -> None:
    records = decode(golden("sequence.bin")).records
    with pytest.raises(ValueError, match="read-only"):
        records["action"] = 0


# Merge, against an oracle in plain Python


def oracle(a: tuple[int, list[Fields]], b: tuple[int, list[Fields]], capacity: int) -> tuple[int, list[Fields]]:
    floor = max(a[0], b[0])
    return floor, sorted({record for record in a[1] + b[1] if record[0] > floor})[-capacity:]


def as_sequence(plain: tuple[int, list[Fields]]) -> Sequence:
    return Sequence(plain[0], np.array(plain[1], RECORD))


def as_plain(sequence: Sequence) -> tuple[int, list[Fields]]:
    return sequence.forgotten_before_ms, [tuple(record) for record in sequence.records.tolist()]


# Few values per field, so that duplicates and ties in each of the fields are common, and the ends of their ranges.
records_st = st.lists(
    st.tuples(
        st.one_of(st.integers(1, 12), st.just(253_402_300_799_999)),
        st.sampled_from([0, 1, 255, 256, 65536, (1 << 63) - 1]),
        st.sampled_from([0, 1, 256, 65535]),
        st.sampled_from([0, 2, 512, 65535]),
    ),
    max_size=24,
)
anything_st = st.tuples(st.sampled_from([0, 0, 0, 3, 7, 13]), records_st)
capacity_st = st.sampled_from([1, 2, 5, 256])


@given(anything_st, anything_st, capacity_st)
def test_merge_is_the_oracles(a: tuple, b: tuple, capacity: int) -> None:
    assert as_plain(merge(as_sequence(a), as_sequence(b), capacity)) == oracle(a, b, capacity)


@given(anything_st, anything_st, anything_st, capacity_st)
def test_merge_is_commutative_associative_and_idempotent_in_bytes(a: tuple, b: tuple, c: tuple, capacity: int) -> None:
    x, y, z = (merge(EMPTY, as_sequence(plain), capacity) for plain in (a, b, c))

    def merged(left: Sequence, right: Sequence) -> Sequence:
        return merge(left, right, capacity)

    assert encode_sequence(merged(x, y)) == encode_sequence(merged(y, x))
    assert encode_sequence(merged(merged(x, y), z)) == encode_sequence(merged(x, merged(y, z)))
    assert encode_sequence(merged(x, x)) == encode_sequence(x)
    assert encode_sequence(merged(x, EMPTY)) == encode_sequence(x)


@given(st.lists(anything_st, max_size=6), st.randoms(use_true_random=False), capacity_st)
def test_any_order_and_any_repetition_give_the_same_bytes(parts: list, random, capacity: int) -> None:
    def folded(order: list) -> bytes:
        sequence = EMPTY
        for part in order:
            sequence = merge(sequence, as_sequence(part), capacity)
        return encode_sequence(sequence)

    repeated = parts + [random.choice(parts) for _ in range(3) if parts]
    random.shuffle(repeated)
    assert folded(repeated) == folded(parts)


@given(anything_st, capacity_st)
def test_what_merge_returns_survives_encoding(a: tuple, capacity: int) -> None:
    sequence = merge(EMPTY, as_sequence(a), capacity)
    value = encode_sequence(sequence)
    assert len(value) == HEADER_BYTES + RECORD_BYTES * len(sequence.records)
    assert as_plain(decode_sequence(value)) == as_plain(sequence)


@given(records_st)
def test_sort_records_sorts_numerically_and_drops_duplicates(records: list[Fields]) -> None:
    assert [tuple(record) for record in sort_records(np.array(records, RECORD)).tolist()] == sorted(set(records))


def test_merge_does_not_write_to_its_arguments() -> None:
    a = decode_sequence(golden("sequence.bin"))
    b = Sequence(0, np.array([(5, 5, 5, 5), (1, 1, 1, 1)], RECORD))
    merge(a, b)
    assert encode_sequence(a) == golden("sequence.bin")
    assert b.records.tolist() == [(5, 5, 5, 5), (1, 1, 1, 1)]


def test_forgetting_needs_no_order() -> None:
    late_duplicate = Sequence(0, np.array([(100, 1, 1, 1)], RECORD))
    forget = Sequence(100, NO_RECORDS)
    later = Sequence(0, np.array([(101, 1, 1, 1)], RECORD))
    for order in ([late_duplicate, forget, later], [forget, later, late_duplicate], [later, late_duplicate, forget]):
        sequence = EMPTY
        for part in order:
            sequence = merge(sequence, part)
        assert as_plain(sequence) == (100, [(101, 1, 1, 1)])


def test_the_layout_is_little_endian_whatever_the_machine() -> None:
    value = encode_sequence(Sequence(2, np.array([(3, 4, 5, 6)], RECORD)))
    assert struct.unpack("<qqqHH", value[8:]) == (2, 3, 4, 5, 6)
