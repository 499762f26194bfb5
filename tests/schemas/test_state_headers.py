"""Headers decoded together: the same as one by one, and nothing accepted that one by one is refused."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

from schemas.bundle import PRESETS
from schemas.errors import StateError
from schemas.state import FIXED_BYTES, Header, Kind, StateLayout, decode_header
from schemas.state_headers import decode_headers
from tests.golden import make
from tests.ranker.states import made_marker, made_state
from tests.schemas.damage import flips, golden

LAYOUT = StateLayout(PRESETS["nano"], make.MODEL_ID)


def one_by_one(values: Sequence[bytes], layout: StateLayout) -> list[Header | None]:
    headers: list[Header | None] = []
    for value in values:
        try:
            header = decode_header(value, layout)
        except StateError:
            headers.append(None)
            continue
        headers.append(header if header.kind is Kind.STATE else None)
    return headers


def assert_same(values: Sequence[bytes], layout: StateLayout = LAYOUT) -> int:
    """How many were accepted."""
    together, alone = decode_headers(values, layout), one_by_one(values, layout)
    for i, (a, b) in enumerate(zip(together, alone, strict=True)):
        assert (a is None) == (b is None), i
        if a is not None and b is not None:
            np.testing.assert_array_equal(a.embedding, b.embedding)
            assert a._replace(embedding=b.embedding) == b, i
            assert [type(field) for field in a] == [type(field) for field in b]
    return sum(header is not None for header in together)


def test_good_ones_are_what_one_by_one_gives() -> None:
    layout = StateLayout(PRESETS["small"], make.MODEL_ID)
    values = [made_state(seed, length=1 + seed, layout=layout) for seed in range(40)]
    assert assert_same(values, layout) == 40
    assert assert_same([value[: layout.header_bytes] for value in values], layout) == 40
    assert assert_same([], layout) == 0


def test_no_damage_is_accepted() -> None:
    value = golden("state.bin")[: LAYOUT.header_bytes]
    flipped = [damaged for _, _, damaged in flips(value)]
    cut = [value[:n] for n in range(len(value))]
    assert assert_same([*flipped, *cut, value]) == 1


def test_what_a_broken_writer_seals_is_judged_as_one_by_one() -> None:
    value = golden("state.bin")[: LAYOUT.header_bytes]
    sealed = []
    for _, _, damaged in flips(value, 0, FIXED_BYTES - 4):
        crc = zlib.crc32(damaged[FIXED_BYTES:], zlib.crc32(damaged[: FIXED_BYTES - 4]))
        sealed.append(damaged[: FIXED_BYTES - 4] + struct.pack("<I", crc) + damaged[FIXED_BYTES:])
    accepted = assert_same(sealed)
    assert 0 < accepted < len(sealed), "times and fences may be anything, versions and sizes may not"


def test_markers_and_other_models_are_none() -> None:
    other = StateLayout(PRESETS["nano"], "ff" * 8)
    larger = StateLayout(PRESETS["small"], make.MODEL_ID)
    values = [made_marker(LAYOUT), made_state(1, layout=other), made_state(1, layout=larger), golden("state.bin"), b""]
    assert assert_same(values) == 1
