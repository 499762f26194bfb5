from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder.features import NO_EVENT_MS, Features, gap_buckets, item_rows, item_seeds, splitmix64
from encoder.tables import encode_table
from schemas.bundle import GAP_BUCKETS, TABLE_CODES
from schemas.sequence import RECORD

MASK = (1 << 64) - 1
I64 = st.integers(-(1 << 63), (1 << 63) - 1)
ROWS, D = 50, 16


def slow_splitmix64(x: int) -> int:
    z = (x + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


@pytest.fixture
def tables() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "items": rng.standard_normal((8, ROWS, D // 8)).astype(np.float16),
        "actions": rng.standard_normal((7, D)).astype(np.float16),
        "surfaces": rng.standard_normal((3, D)).astype(np.float16),
        "gaps": rng.standard_normal((GAP_BUCKETS, D)).astype(np.float16),
        "candidate": rng.standard_normal(D).astype(np.float16),
    }


def records(*rows: tuple[int, int, int]) -> np.ndarray:
    return np.array([(0, *row) for row in rows], RECORD)


def test_splitmix64_gives_the_published_numbers() -> None:
    # The reference implementation's first outputs for the seeds 0 and 1234567.
    assert splitmix64(np.array([0, 1234567], np.uint64)).tolist() == [0xE220A8397B1DCDAF, 6457827717110365317]


@given(st.lists(I64, min_size=1, max_size=5), st.integers(1, 1 << 33), st.integers(0, 1000))
def test_item_rows_are_those_of_the_formula(ids: list[int], rows: int, seed: int) -> None:
    seeds = item_seeds(seed)
    expected = [[slow_splitmix64((i & MASK) ^ s) % rows for i in ids] for s in seeds]
    assert item_rows(np.array(ids, np.int64), seeds, rows).tolist() == expected


def test_item_rows_never_change() -> None:
    """Stored tables are only right with this hash: should it change, every model ever trained is worthless."""
    assert item_rows(np.array([0, 42, -1]), item_seeds(0), 16_384).T.tolist() == GOLDEN_ROWS


def test_sub_tables_are_hashed_apart() -> None:
    rows = item_rows(np.arange(10_000), item_seeds(1), 64)
    assert len(set(item_seeds(1))) == 8
    for a in range(8):
        for b in range(a):
            assert abs((rows[a] == rows[b]).mean() - 1 / 64) < 0.01
        assert np.bincount(rows[a], minlength=64).min() > 100


def test_tokens_are_the_sum_of_their_rows(tables: dict[str, np.ndarray]) -> None:
    seeds = item_seeds(3)
    features = Features(**tables, seeds=seeds)
    events = records((5, 2, 1), (-7, 6, 0), (5, 0, 2))
    tokens = features.window_tokens(events)
    assert tokens.dtype == np.float32
    for token, event, gap in zip(tokens, events, (0, 1, 1), strict=True):
        pieces = [
            tables["items"][j, slow_splitmix64((int(event["item_id"]) & MASK) ^ s) % ROWS] for j, s in enumerate(seeds)
        ]
        item = np.concatenate(pieces).astype(np.float32)
        expected = (
            item + tables["actions"][event["action"]] + tables["surfaces"][event["surface"]] + tables["gaps"][gap]
        )
        np.testing.assert_array_equal(token, expected.astype(np.float32))
    np.testing.assert_array_equal(
        features.candidates(events["item_id"])[0], features.items(events["item_id"])[0] + tables["candidate"]
    )


def test_gaps_double_from_row_to_row() -> None:
    gaps_s = [0, 0.999, 1, 1.999, 2, 3.9, 4, 7, 8, 3600, 86_400, 2**25 - 1, 2**25, 2**40]
    rows = [1, 1, 2, 2, 3, 3, 4, 4, 5, 13, 18, 26, 27, 27]
    now_ms = np.full(len(gaps_s), 1 << 60)
    assert gap_buckets(now_ms, now_ms - (1000 * np.array(gaps_s)).astype(np.int64)).tolist() == rows
    assert gap_buckets(np.array([0, 5000]), np.array([NO_EVENT_MS, NO_EVENT_MS])).tolist() == [0, 0]
    assert gap_buckets(np.array([5000]), np.array([6000])).tolist() == [1], "an event out of order has no gap"


def test_unknown_codes_count_as_other(tables: dict[str, np.ndarray]) -> None:
    features = Features(**tables, seeds=item_seeds(0))
    unknown, other = (
        features.window_tokens(records((9, 7, 3), (9, 65535, 65535))),
        features.window_tokens(records(*[(9, 0, 0)] * 2)),
    )
    np.testing.assert_array_equal(unknown, other)


def test_nothing_gives_no_tokens(tables: dict[str, np.ndarray]) -> None:
    features = Features(**tables, seeds=item_seeds(0))
    assert features.window_tokens(records()).shape == (0, D)
    assert features.candidates(np.empty(0, np.int64)).shape == (0, D)


@pytest.mark.parametrize("code", TABLE_CODES)
def test_memory_mapped_tables_give_the_same(tables: dict[str, np.ndarray], tmp_path: Path, code: str) -> None:
    stored = encode_table(tables["items"].astype(np.float32), code)
    np.save(tmp_path / "items.npy", stored)
    mapped = np.load(tmp_path / "items.npy", mmap_mode="r")
    events = records(*((item, 1, 1) for item in range(100)))
    in_memory, tokens = (
        Features(**{**tables, "items": items}, seeds=item_seeds(0)).window_tokens(events) for items in (stored, mapped)
    )
    assert type(tokens) is np.ndarray
    assert tokens.dtype == np.float32
    np.testing.assert_array_equal(tokens, in_memory)


def test_tokens_of_int4_tables_differ_by_half_a_step_at_most(tables: dict[str, np.ndarray]) -> None:
    seeds, items = item_seeds(0), np.arange(-50, 50)
    int4 = encode_table(tables["items"].astype(np.float32), "int4")
    exact, rounded = (
        Features(**{**tables, "items": table}, seeds=seeds).items(items) for table in (tables["items"], int4)
    )
    steps = int4["scale"][np.arange(8)[:, None], item_rows(items, seeds, ROWS)].T  # (n, 8)
    bound = np.repeat(steps.astype(np.float64) / 2, D // 8, axis=1)
    assert (np.abs(exact - rounded) <= bound * (1 + 1e-5)).all()
    assert (exact != rounded).any()


GOLDEN_ROWS = [
    [15983, 8478, 1204, 2199, 13771, 565, 1969, 3653],
    [11035, 15401, 11955, 13218, 6215, 8610, 1520, 4028],
    [12912, 9370, 12717, 1478, 13955, 5366, 12739, 5984],
]
