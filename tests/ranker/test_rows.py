"""Values as rows: nothing that a value holds raises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.rows import Row, Status, read_rows
from schemas.bundle import PRESETS
from schemas.state import StateLayout
from tests.ranker.states import ARRIVED_MS, LAYOUT, made_marker, made_state

OTHERS = [made_state(seed) for seed in range(20)]
KEY = "slipstream:00112233445566ff:u-17"


def row_of(value: bytes, age_ms: int = 250, max_age_ms: int | None = None, embedding_only: bool = False) -> Row:
    """Alone, and among many others, which is another way."""

    def first_of(values: list[bytes]) -> Row:
        n = len(values)
        now_ms = ARRIVED_MS + age_ms
        rows = read_rows(["u-17"] * n, [KEY.encode()] * n, values, LAYOUT, now_ms, max_age_ms, embedding_only)
        assert all(row.usable for row in rows[1:]), "one value spoils no other's row"
        return rows[0]

    row = first_of([value])
    assert repr(first_of([value, *OTHERS])) == repr(row)
    return row


def test_present() -> None:
    row = row_of(made_state(1, length=7), max_age_ms=250)
    assert (row.user, row.status, row.age_ms, row.length, row.why) == ("u-17", Status.PRESENT, 250, 7, "")
    assert row.usable
    assert row.state is not None
    assert len(row.state.slots) == 7
    assert row.embedding is not None
    assert np.linalg.norm(row.embedding.astype(np.float32)) == pytest.approx(1, abs=2e-3)


def test_stale_is_usable_and_says_how_old() -> None:
    row = row_of(made_state(1), age_ms=251, max_age_ms=250)
    assert (row.status, row.age_ms, row.usable) == (Status.STALE, 251, True)
    assert row.state is not None
    assert row.why == f"{KEY}: 251 ms old, the limit is 250 ms"


def test_a_clock_behind_the_brokers_gives_age_0() -> None:
    assert row_of(made_state(1), age_ms=-40, max_age_ms=0).age_ms == 0


def test_embedding_only_needs_the_header_only() -> None:
    value = made_state(1)
    whole = row_of(value)
    part = row_of(value[: LAYOUT.header_bytes], embedding_only=True)
    assert (part.status, part.age_ms, part.length, part.state) == (Status.PRESENT, 250, 5, None)
    np.testing.assert_array_equal(part.embedding, whole.embedding)


def test_forgotten_is_not_found() -> None:
    row = row_of(made_marker())
    assert (row.status, row.state, row.embedding, row.usable) == (Status.NOT_FOUND, None, None, False)
    assert "forgotten" in row.why


def test_a_damaged_slot_spoils_the_state_but_not_the_embedding() -> None:
    value = bytearray(made_state(1))
    value[LAYOUT.header_bytes + 3] ^= 1
    row = row_of(bytes(value))
    assert (row.status, row.state, row.embedding) == (Status.INVALID, None, None)
    assert row.why == f"{KEY}: the slots' checksum does not match: it is damaged"
    assert row_of(bytes(value), embedding_only=True).status is Status.PRESENT


def test_another_model_and_another_shape_are_invalid() -> None:
    assert "made by model" in row_of(made_state(1, layout=StateLayout(PRESETS["nano"], "ff" * 8))).why
    assert row_of(made_state(1, layout=StateLayout(PRESETS["small"], LAYOUT.model_id))).status is Status.INVALID


VALUE = made_state(3)


@given(st.integers(0, LAYOUT.value_bytes(5) * 8 - 1), st.booleans())
def test_no_flipped_bit_raises(bit: int, embedding_only: bool) -> None:
    value = bytearray(VALUE)
    value[bit // 8] ^= 1 << bit % 8
    row = row_of(bytes(value), embedding_only=embedding_only)
    unseen = embedding_only and bit // 8 >= LAYOUT.header_bytes
    assert row.status is (Status.PRESENT if unseen else Status.INVALID)
    assert unseen or row.why.startswith(KEY)


@given(st.binary(max_size=400), st.booleans())
def test_no_bytes_raise(value: bytes, embedding_only: bool) -> None:
    assert row_of(value, embedding_only=embedding_only).status is Status.INVALID
