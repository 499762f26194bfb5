"""Run: pytest tests/stream/test_merge.py"""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.batch import Batch
from schemas.sequence import EMPTY, RECORD, Sequence, decode_sequence, encode_sequence, merge, sort_records
from stream.merge import combine, fold, merge_many

# Few values, so that repeated, simultaneous and late records are common.
record = st.tuples(st.integers(1, 12), st.integers(0, 3), st.integers(0, 1), st.integers(0, 1))
user = st.sampled_from([b"a", b"b", "ü".encode(), b"d" * 200])
floor = st.sampled_from([0, 0, 0, 3, 6, 20])
# What one batch says: per user a floor and records.
said = st.dictionaries(user, st.tuples(floor, st.lists(record, max_size=8)), min_size=1, max_size=4)
capacity = st.sampled_from([1, 2, 5, 256])


def batch_of(content: dict[bytes, tuple[int, list[tuple[int, int, int, int]]]], sort: bool = True) -> Batch:
    parts = [np.array(records, RECORD) for _, records in content.values()]
    if sort:
        parts = [sort_records(part) for part in parts]
    return Batch(
        list(content),
        np.arange(len(content), dtype=np.int64) + 100,
        np.array([f for f, _ in content.values()], np.int64),
        np.array([len(part) for part in parts], np.uint32),
        np.concatenate(parts),
    )


def one_by_one(batches: list[Batch], keep: int) -> dict[bytes, bytes]:
    """The oracle: schemas.sequence.merge, batch by batch and user by user."""
    sequences: dict[bytes, Sequence] = {}
    for batch in batches:
        start = 0
        for key, floor_ms, count in zip(batch.users, batch.forgotten_before_ms, batch.counts, strict=True):
            new = Sequence(int(floor_ms), batch.records[start : start + int(count)])
            sequences[key] = merge(sequences.get(key, EMPTY), new, keep)
            start += int(count)
    return {k: encode_sequence(s) for k, s in sequences.items() if s.forgotten_before_ms or len(s.records)}


@given(st.lists(said, min_size=1, max_size=6), capacity, st.booleans(), st.randoms(use_true_random=False))
def test_any_batching_order_and_duplication_gives_the_same_bytes(
    contents: list[dict[bytes, tuple[int, list[tuple[int, int, int, int]]]]],
    keep: int,
    sort: bool,
    rng: random.Random,
) -> None:
    batches = [batch_of(content, sort) for content in contents]
    expected = one_by_one(batches, keep)
    shuffled = batches + rng.sample(batches, rng.randrange(len(batches) + 1))
    rng.shuffle(shuffled)
    values: dict[bytes, bytes] = {}
    while shuffled:  # some at a time
        some = rng.randrange(1, len(shuffled) + 1)
        changed = fold(values, shuffled[:some], keep)
        assert all(values[key] == value for key, value in changed.items())
        del shuffled[:some]
    assert values == expected
    assert fold(values, batches, keep) == {}, "what is known already changes nothing, so nothing is written"


@given(said, said, capacity)
def test_merge_many_is_merge(
    before: dict[bytes, tuple[int, list[tuple[int, int, int, int]]]],
    after: dict[bytes, tuple[int, list[tuple[int, int, int, int]]]],
    keep: int,
) -> None:
    values: dict[bytes, bytes] = {}
    fold(values, [batch_of(before)], keep)
    news = combine([batch_of(after)])
    old = [values.get(key) for key in news.users]
    for u, (key, value, result) in enumerate(zip(news.users, old, merge_many(old, news, keep), strict=True)):
        new = Sequence(int(news.forgotten_before_ms[u]), news.records[news.starts[u] : news.starts[u + 1]])
        merged = merge(EMPTY if value is None else decode_sequence(value), new, keep)
        if result is None:
            assert encode_sequence(merged) == (value or encode_sequence(EMPTY))
        else:
            assert result == encode_sequence(merged), key


def test_fast_and_slow_users_side_by_side_at_full_length() -> None:
    rng = np.random.default_rng(7)

    def events(n: int, first_ms: int, span_ms: int) -> list[tuple[int, int, int, int]]:
        times = rng.integers(first_ms, first_ms + span_ms, n).tolist()
        return [(t, int(i), 4, 1) for t, i in zip(times, rng.integers(0, 1 << 62, n).tolist(), strict=True)]

    first = {b"u%d" % u: (0, events(300, 1_000_000, 10_000_000)) for u in range(50)}
    # Even users have only news, odd ones late and repeated events.
    second = {
        key: (0, events(20, 20_000_000, 1000) if u % 2 == 0 else events(20, 1_000_000, 10**7) + first[key][1][-3:])
        for u, key in enumerate(first)
    }
    batches = [batch_of(first), batch_of(second)]
    values: dict[bytes, bytes] = {}
    for batch in batches:
        fold(values, [batch], 256)
    assert values == one_by_one(batches, 256)
    assert all(len(decode_sequence(value).records) == 256 for value in values.values())


def test_combine_takes_the_oldest_arrival_and_the_highest_floor() -> None:
    a = batch_of({b"x": (5, [(9, 1, 1, 1)]), b"y": (0, [(8, 1, 1, 1)])})
    b = batch_of({b"x": (3, [(7, 1, 1, 1)])})
    b = b._replace(arrived_ms=b.arrived_ms - 50)
    news = combine([a, b])
    assert news.users == [b"x", b"y"]
    assert news.arrived_ms.tolist() == [50, 101]
    assert news.forgotten_before_ms.tolist() == [5, 0]
    assert news.starts.tolist() == [0, 2, 3]
    assert news.records["timestamp_ms"].tolist() == [9, 7, 8]


@pytest.mark.parametrize("keep", [1, 256])
def test_forgetting(keep: int) -> None:
    values: dict[bytes, bytes] = {}
    fold(values, [batch_of({b"x": (0, [(5, 1, 1, 1), (6, 1, 1, 1)])})], keep)
    fold(values, [batch_of({b"x": (6, []), b"nobody": (6, [])})], keep)
    for value in values.values():
        assert decode_sequence(value).forgotten_before_ms == 6
        assert len(decode_sequence(value).records) == 0
    late = batch_of({b"x": (0, [(5, 1, 1, 1)]), b"nobody": (0, [(4, 1, 1, 1)])})
    assert fold(values, [late], keep) == {}, "a late duplicate of a forgotten event stays forgotten"
    fold(values, [batch_of({b"x": (0, [(7, 2, 1, 1)])})], keep)
    assert decode_sequence(values[b"x"]).records["timestamp_ms"].tolist() == [7]
    assert decode_sequence(values[b"x"]).forgotten_before_ms == 6


def test_a_batch_that_says_nothing_writes_nothing() -> None:
    assert fold({}, [batch_of({b"x": (0, [])})], 256) == {}
    assert fold({}, [], 256) == {}
