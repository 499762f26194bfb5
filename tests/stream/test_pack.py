"""Run: pytest tests/stream/test_pack.py"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.batch import Batch, decode_batch
from schemas.errors import EventError
from schemas.event import Event, Parser, ParserConfig, encode_engagement, encode_forget
from schemas.sequence import RECORD, sort_records
from stream.merge import fold
from stream.pack import Packed, batch_bytes, pack, split
from stream.partitioner import partitions_of
from tests.bad_input import MAX_AGE_MS, raw_kinds

NOW_MS = 1767225600000
PARSER = Parser(ParserConfig())
BIG = 1 << 20

# An event's user, item, action, surface and age; few values, so that duplicates and simultaneous events are common.
raw_event = st.builds(
    lambda user, item, action, age: encode_engagement(user, item, action, "home", NOW_MS - age),
    st.sampled_from(["a", "b", "c", "ü", "long-" * 20]),
    st.one_of(st.integers(0, 3), st.sampled_from(["x", "y"])),
    st.sampled_from(["save", "view"]),
    st.integers(0, 6),
)
raw_forget = st.builds(
    lambda user, age: encode_forget(user, NOW_MS - age), st.sampled_from(["a", "b", "nobody"]), st.integers(0, 6)
)
raw_bad = st.sampled_from([b"", b"{", b"[]", b'{"user_id": 1}', None])
raw = st.one_of(raw_event, raw_event, raw_event, raw_forget, raw_bad)


def packed(values: Sequence[bytes | None], partitions: int = 4, max_bytes: int = BIG) -> Packed:
    return pack(values, [NOW_MS] * len(values), PARSER, partitions, max_bytes)


def sequences(
    values: Sequence[bytes | None], passes: Sequence[int], partitions: int, max_bytes: int
) -> dict[bytes, bytes]:
    """What the stages make of the messages, in passes of the given sizes."""
    result: dict[bytes, bytes] = {}
    start = 0
    for size in passes:
        for message in packed(values[start : start + size], partitions, max_bytes).batches:
            fold(result, [decode_batch(message.value)], 5)
        start += size
    assert start == len(values)
    return result


@given(
    st.lists(raw, max_size=40), st.integers(1, 7), st.sampled_from([100, 300, BIG]), st.randoms(use_true_random=False)
)
def test_any_order_duplication_and_batching_gives_the_same_sequences(
    values: list[bytes | None], partitions: int, max_bytes: int, rng: random.Random
) -> None:
    expected = sequences(values, [1] * len(values), 1, BIG)
    again = values + rng.sample(values, rng.randrange(len(values) + 1))
    rng.shuffle(again)
    passes: list[int] = []
    while sum(passes) < len(again):
        passes.append(rng.randrange(1, len(again) - sum(passes) + 1))
    assert sequences(again, passes, partitions, max_bytes) == expected


@given(st.lists(raw, min_size=1, max_size=40), st.integers(1, 7))
def test_each_batch_is_as_a_plain_rebuild_says(values: list[bytes | None], partitions: int) -> None:
    arrived = [NOW_MS + 10 * i for i in range(len(values))]
    result = pack(values, arrived, PARSER, partitions, BIG)
    records: dict[bytes, list[tuple[int, int, int, int]]] = {}
    floors: dict[bytes, int] = {}
    oldest: dict[bytes, int] = {}
    rejected = []
    for i, value in enumerate(values):
        try:
            parsed = PARSER.parse(value, arrived[i])
        except EventError as error:
            rejected.append((i, error.reason, str(error)))
            continue
        records.setdefault(parsed.user, [])
        oldest.setdefault(parsed.user, arrived[i])
        if isinstance(parsed, Event):
            records[parsed.user].append(parsed[1:])
        else:
            floors[parsed.user] = max(floors.get(parsed.user, 0), parsed.before_ms)
    assert result.rejected == rejected
    assert result.events == len(values) - len(rejected)
    seen: set[bytes] = set()
    for message in result.batches:
        batch = decode_batch(message.value)
        assert (message.users, message.records) == (len(batch.users), len(batch.records))
        assert partitions_of(batch.users, partitions).tolist() == [message.partition] * len(batch.users)
        starts = np.concatenate([[0], np.cumsum(batch.counts)]).astype(int)
        for u, user in enumerate(batch.users):
            assert user not in seen
            seen.add(user)
            expected = sort_records(np.array(records[user], RECORD))
            assert batch.records[starts[u] : starts[u + 1]].tolist() == expected.tolist()
            assert batch.forgotten_before_ms[u] == floors.get(user, 0)
            assert batch.arrived_ms[u] == oldest[user]
    assert seen == set(records)


def test_nothing_gives_nothing() -> None:
    assert packed([]) == Packed([], [], 0)


BAD = raw_kinds(NOW_MS)


@pytest.mark.parametrize(("value", "reason"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_rejected_and_the_rest_flows(value: bytes | None, reason: str) -> None:
    parser = Parser(ParserConfig(max_age_ms=MAX_AGE_MS))
    good = encode_engagement("u", 7, "save", "home", NOW_MS)
    result = pack([good, value, good], [NOW_MS] * 3, parser, 4, BIG)
    (rejected,) = result.rejected
    assert (rejected.at, rejected.reason) == (1, reason)
    assert rejected.error
    (batch,) = result.batches
    assert decode_batch(batch.value).records["item_id"].tolist() == [7]
    assert result.events == 2


@pytest.mark.parametrize("name", ["unknown action", "unknown surface"])
def test_unknown_names_can_be_let_through_as_other(name: str) -> None:
    result = pack([BAD[name][0]], [NOW_MS], Parser(ParserConfig(unknown_names="other")), 4, BIG)
    assert not result.rejected
    record = decode_batch(result.batches[0].value).records[0]
    assert 0 in (record["action"], record["surface"])


def make_batch(counts: list[int]) -> Batch:
    records = np.zeros(sum(counts), RECORD)
    records["timestamp_ms"] = np.arange(len(records))
    n = len(counts)
    users = [b"user-%d" % i for i in range(n)]
    return Batch(users, np.arange(n), np.arange(n) * 10, np.array(counts, np.uint32), records)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=20), st.integers(100, 2000))
def test_split_keeps_everything_and_the_limit(counts: list[int], limit: int) -> None:
    whole = make_batch(counts)
    parts = split(whole, limit)
    assert sum(len(part.records) for part in parts) == sum(counts)
    assert np.concatenate([part.records for part in parts]).tolist() == whole.records.tolist()
    for part in parts:
        assert batch_bytes(part) <= limit
        assert int(part.counts.sum()) == len(part.records)
        for user, floor in zip(part.users, part.forgotten_before_ms, strict=True):
            assert floor == 10 * whole.users.index(user), "a floor goes with every part of its user"
    per_user = dict.fromkeys(whole.users, 0)
    for part in parts:
        for user, count in zip(part.users, part.counts.tolist(), strict=True):
            per_user[user] += count
    assert list(per_user.values()) == counts


def test_a_single_record_cannot_be_split() -> None:
    one = make_batch([1])
    assert split(one, 10) == [one]
