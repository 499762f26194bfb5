"""Tables of items: what is stored is what a slow reader reads, and no number is further off than half a step."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from encoder.tables import MAX_ROWS, MIN_ROWS, decode_rows, encode_table, flat_rows, rounded_tables, rows_for
from encoder.weights import random_weights
from schemas.bundle import PRESETS, ModelShape
from schemas.vocabulary import Vocabulary

F32_EPS = 2.0**-23
#: What trained tables hold, what fp16 just holds, what it cannot hold exactly, and nothing.
NUMBERS = st.one_of(
    st.floats(-8, 8, width=32),
    st.floats(-60000, 60000, width=32),
    st.floats(-(2.0**-23), 2.0**-23, width=32),
    st.sampled_from([float(np.float32(x)) for x in (0, -0.0, 1, 0.1, 1e-45, -1e-45, 6e-8, 6e-5, 65504, -65504)]),
)


def slow_row(row: bytes, width: int) -> list[float]:
    """As docs/state-format.md says, number by number."""
    scale, bias = struct.unpack_from("<ee", row)
    codes = [(row[4 + i // 2] >> (4 * (i % 2))) & 15 for i in range(width)]
    return [float(np.float32(bias) + np.float32(scale) * np.float32(code)) for code in codes]


def assert_within_half_a_step(values: np.ndarray, table: np.ndarray) -> None:
    got = decode_rows(table, values.shape[-1])
    assert got.shape == values.shape
    assert got.dtype == np.float32
    off = np.abs(got.astype(np.float64) - values)
    # Beside half a step only what f32 itself rounds away.
    bound = table["scale"].astype(np.float64)[..., None] / 2
    bound = bound + F32_EPS * np.abs(values.astype(np.float64)).max(axis=-1, keepdims=True)
    assert (off <= bound).all(), (off - bound).max()


@given(arrays(np.float32, st.tuples(st.just(8), st.integers(1, 5), st.integers(1, 9)), elements=NUMBERS))
def test_int4_is_within_half_a_step_and_read_as_the_document_says(values: np.ndarray) -> None:
    table = encode_table(values, "int4")
    width = values.shape[-1]
    assert table.shape == values.shape[:2]
    assert table.dtype.itemsize == 4 + (width + 1) // 2
    assert np.isfinite(table["scale"]).all()
    assert (table["scale"] >= 0).all()
    assert_within_half_a_step(values, table)
    slow = [[slow_row(row.tobytes(), width) for row in rows] for rows in table]
    np.testing.assert_array_equal(decode_rows(table, width), np.array(slow, np.float32))
    # The step is no wider than it has to be: a fifteenth of the row's range, but for what fp16 rounds.
    low, high = values.min(axis=-1).astype(np.float64), values.max(axis=-1).astype(np.float64)
    widest = ((high - low) + np.abs(low) * 2.0**-10 + 2.0**-23) / 15 * (1 + 2.0**-10) + 2.0**-23
    assert (table["scale"].astype(np.float64) <= widest).all()


@pytest.mark.parametrize("width", [1, 2, 3, 8, 16, 32, 96])
def test_every_number_has_the_nearest_code(width: int) -> None:
    values = np.random.default_rng(width).standard_normal((8, 7, width)).astype(np.float32)
    table = encode_table(values, "int4")
    for j in range(8):
        for r in range(7):
            row = table[j, r]
            codes = [(byte >> shift) & 15 for byte in row["codes"].tolist() for shift in (0, 4)]
            for code, value in zip(codes, values[j, r].tolist(), strict=False):
                off = [abs(float(row["bias"]) + float(row["scale"]) * other - value) for other in range(16)]
                assert off[code] == min(off)
            assert set(codes[width:]) <= {0}
            assert {0, 15} <= set(codes) or width == 1, "a row's least and greatest number have the first and last code"


@pytest.mark.parametrize("value", [0.0, -0.0, 1.5, -3.25, 65504.0, -65504.0, 2.0**-24])
def test_rows_of_one_number_that_fp16_holds_are_exact(value: float) -> None:
    values = np.full((8, 2, 5), value, np.float32)
    table = encode_table(values, "int4")
    assert (table["scale"] == 0).all()
    np.testing.assert_array_equal(decode_rows(table, 5), values)


@pytest.mark.parametrize("value", [0.1, -0.1, 1e-9, -1e-9, 12345.678, -65503.9])
def test_rows_of_one_number_that_fp16_does_not_hold_are_near(value: float) -> None:
    values = np.full((8, 2, 5), value, np.float32)
    assert_within_half_a_step(values, encode_table(values, "int4"))


def test_the_whole_range_of_fp16_fits_a_row() -> None:
    values = np.tile(np.linspace(-65504, 65504, 16, dtype=np.float32), (8, 1, 1))
    table = encode_table(values, "int4")
    assert np.isfinite(table["scale"]).all()
    assert_within_half_a_step(values, table)


@pytest.mark.parametrize("code", ["fp16", "int4"])
def test_more_than_fp16_holds_is_not_finite_and_says_nothing(code: str) -> None:
    """No warning: whoever writes the table (encoder.bundle) refuses it, with a message."""
    values = np.zeros((8, 2, 4), np.float32)
    values[3, 1, 2] = -1e6
    table = encode_table(values, code)
    stored = table["bias"] if code == "int4" else table
    assert not np.isfinite(stored).all()
    assert np.isfinite(np.delete(stored, 3, axis=0)).all()


def test_a_table_longer_than_what_is_encoded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).standard_normal((8, 50, 4)).astype(np.float32)
    at_once = encode_table(values, "int4")
    monkeypatch.setattr("encoder.tables._ENCODED_ROWS", 7)
    np.testing.assert_array_equal(encode_table(values, "int4"), at_once)


def test_every_finite_half_is_read_exactly() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    got = decode_rows(halves.reshape(-1, 8), 8)
    np.testing.assert_array_equal(got.view(np.uint32), halves.astype(np.float32).reshape(-1, 8).view(np.uint32))


@pytest.mark.parametrize("code", ["fp16", "int4"])
@pytest.mark.parametrize("width", [1, 5, 8])
def test_tables_are_stored_mapped_and_picked_from(tmp_path: Path, code: str, width: int) -> None:
    values = np.random.default_rng(1).standard_normal((8, 6, width)).astype(np.float32)
    np.save(tmp_path / "items.npy", encode_table(values, code), allow_pickle=False)
    mapped = np.load(tmp_path / "items.npy", mmap_mode="r", allow_pickle=False)
    rounded = rounded_tables(_weights(values), code)["items"]
    flat = flat_rows(mapped)
    assert np.shares_memory(flat, mapped)
    for picked in (np.array([[40, 3], [0, 47]]), np.empty((0, 8), np.int64)):
        got = decode_rows(flat.take(picked, axis=0), width)
        np.testing.assert_array_equal(got, rounded.reshape(48, width)[picked])


def test_rounded_tables_are_a_copy_of_what_is_served() -> None:
    shape = ModelShape(layers=1, d_model=24, heads=2, kv_heads=1, rows=10)  # pieces of odd width
    weights = random_weights(shape, Vocabulary())
    before = {name: value.copy() for name, value in weights.items()}
    half, int4 = rounded_tables(weights, "fp16"), rounded_tables(weights, "int4")
    for name, value in weights.items():
        np.testing.assert_array_equal(value, before[name])
        assert half[name].shape == int4[name].shape == value.shape
        if name in ("items", "actions", "surfaces", "gaps", "candidate"):
            np.testing.assert_array_equal(half[name], value.astype(np.float16).astype(np.float32))
        else:
            np.testing.assert_array_equal(half[name], value)
        if name != "items":
            np.testing.assert_array_equal(int4[name], half[name])
    assert not np.array_equal(int4["items"], half["items"])


@pytest.mark.parametrize(("width", "share"), [(8, 1 / 2), (16, 3 / 8), (32, 5 / 16)])
def test_bytes_of_int4_beside_fp16(width: int, share: float) -> None:
    values = np.zeros((8, 4, width), np.float32)
    assert encode_table(values, "int4").nbytes == share * encode_table(values, "fp16").nbytes


@pytest.mark.parametrize(
    ("items", "rows"),
    [(0, 1024), (1, 1024), (256, 1024), (257, 2048), (1024, 4096), (1682, 8192), (3706, 16_384), (1 << 30, 1 << 20)],
)
def test_rows_follow_the_catalogue(items: int, rows: int) -> None:
    assert rows_for(items) == rows


@given(st.integers(0, 1 << 40))
def test_rows_are_a_length_that_a_model_may_have(items: int) -> None:
    rows = rows_for(items)
    assert rows_for(items + 1) >= rows
    assert MIN_ROWS <= rows <= MAX_ROWS
    assert rows >= min(4 * items, MAX_ROWS)
    assert ModelShape(layers=1, d_model=8, heads=1, kv_heads=1, rows=rows).rows == rows


def test_the_document_draws_the_row_as_it_is() -> None:
    text = (Path(__file__).parents[2] / "docs" / "state-format.md").read_text()
    section = text.split('With `"int4"`')[1].split("A string item id")[0]
    table = encode_table(np.zeros((8, 1, PRESETS["small"].d_model // 8), np.float32), "int4")
    assert table.dtype.fields is not None
    for name, start, end, letters in (("scale", 0, 1, "f16"), ("bias", 2, 3, "f16")):
        assert table.dtype.fields[name][1] == start
        assert re.search(rf"\| {start} to {end} \| {letters} \| `{name}` \|", section)
    assert table.dtype.fields["codes"][1] == 4
    assert "| 4 to 3 + ⌈w/2⌉ | u8 | codes" in section


def _weights(items: np.ndarray) -> dict[str, np.ndarray]:
    rest = {name: np.zeros(4, np.float32) for name in ("actions", "surfaces", "gaps", "candidate")}
    return {"items": items, **rest}
