"""Pure core of the sequence stage: many users' sequences and new records in, changed sequences out.

The same bytes as schemas.sequence.merge, user by user (a test says so), at a fraction of its cost. Most users have only news:
records later than all that they had. Those are appended as bytes; the rest are sorted together in one call.

Letters: b batches, n distinct users, m records.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.batch import Batch
from schemas.sequence import (
    EMPTY,
    HEADER_BYTES,
    RECORD_BYTES,
    Records,
    decode_sequence,
    encode_sequence,
    floor_of,
    newest_ms_of,
    pack_sequence,
)
from schemas.sequence import Sequence as UserSequence


class News(NamedTuple):
    """What several batches say, by user.

    Attributes:
        users: n distinct keys.
        arrived_ms: `(n,)` i64, arrival of the user's oldest raw message.
        forgotten_before_ms: `(n,)` i64, the highest floor.
        starts: `(n + 1,)` i64: the records of user u are `records[starts[u]:starts[u + 1]]`.
        records: `(m,)` of RECORD, in any order within a user.
    """

    users: list[bytes]
    arrived_ms: NDArray[np.int64]
    forgotten_before_ms: NDArray[np.int64]
    starts: NDArray[np.int64]
    records: Records


def combine(batches: Sequence[Batch]) -> News:
    """All that the batches say about each user, whichever of them say it."""
    index: dict[bytes, int] = {}
    rows = [index.setdefault(user, len(index)) for batch in batches for user in batch.users]  # of every batch's users
    arrived = np.concatenate([batch.arrived_ms for batch in batches])
    floors = np.concatenate([batch.forgotten_before_ms for batch in batches])
    counts = np.concatenate([batch.counts for batch in batches]).astype(np.int64)
    records = np.concatenate([batch.records for batch in batches]) if len(batches) > 1 else batches[0].records
    n = len(index)
    if n == len(rows):  # nobody twice
        starts = np.concatenate([[0], np.cumsum(counts)])
        return News(list(index), arrived, floors, starts, records)
    row = np.array(rows, np.int64)
    least = np.full(n, np.iinfo(np.int64).max)
    np.minimum.at(least, row, arrived)
    highest = np.zeros(n, np.int64)
    np.maximum.at(highest, row, floors)
    owner = np.repeat(row, counts)  # (m,)
    order = np.argsort(owner, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=n))])
    return News(list(index), least, highest, starts, records[order])


def merge_many(old: Sequence[bytes | None], news: News, capacity: int) -> list[bytes | None]:
    """The new value of each user's sequence, None where it stays as it is.

    Args:
        old: n values as they are in the changelog, None for a user without one. They must be valid.
        capacity: records that a sequence keeps.

    Returns:
        n values: what `schemas.sequence.merge` gives for each user, encoded.
    """
    n = len(old)
    starts = news.starts.tolist()
    time = news.records["timestamp_ms"]  # (m,)
    # Is each record later than the one before it? Only then are a user's records sorted and distinct for sure.
    later = np.ones(len(time), bool)
    np.greater(time[1:], time[:-1], out=later[1:])
    later[news.starts[:-1][news.starts[:-1] < len(time)]] = True  # a user's first one has none before it
    unsorted = np.concatenate([[0], np.cumsum(~later)])  # (m + 1,)
    tangled = (unsorted[news.starts[1:]] > unsorted[news.starts[:-1]]).tolist()  # (n,)
    floors = news.forgotten_before_ms.tolist()
    firsts = _first_timestamps(news)

    new_bytes = news.records.tobytes()
    result: list[bytes | None] = [None] * n
    slow: list[int] = []
    for u, value in enumerate(old):
        start, end = starts[u] * RECORD_BYTES, starts[u + 1] * RECORD_BYTES
        if value is None:
            floor = newest = floors[u]
        else:
            floor, newest = floor_of(value), newest_ms_of(value)
        if tangled[u] or firsts[u] <= newest or floors[u] > floor:
            slow.append(u)
        elif start < end:
            result[u] = pack_sequence(floor, _appended(value, new_bytes[start:end], capacity * RECORD_BYTES))
        elif value is None and floor:
            result[u] = pack_sequence(floor, b"")  # of a user who may come later: a forgotten event stays forgotten
    if slow:
        _merge_slowly(slow, old, news, capacity, result)
    return result


def _first_timestamps(news: News) -> list[int]:
    """Of each user's new records; far in the future for a user without any."""
    first = np.full(len(news.users), np.iinfo(np.int64).max)
    some = news.starts[:-1] < news.starts[1:]
    first[some] = news.records["timestamp_ms"][news.starts[:-1][some]]
    values: list[int] = first.tolist()
    return values


def _appended(value: bytes | None, new: bytes, most: int) -> bytes:
    """The last `most` bytes of a value's records and the new ones."""
    if value is None or len(new) >= most:
        return new[-most:]
    excess = len(value) - HEADER_BYTES + len(new) - most
    return value[HEADER_BYTES + max(0, excess) :] + new


def _merge_slowly(
    slow: list[int], old: Sequence[bytes | None], news: News, capacity: int, result: list[bytes | None]
) -> None:
    """Late, repeated and simultaneous records, raised floors: all such users sorted in one call."""
    sequences = [EMPTY if (value := old[u]) is None else decode_sequence(value) for u in slow]
    parts = [s.records for s in sequences] + [news.records[news.starts[u] : news.starts[u + 1]] for u in slow]
    sizes = [len(part) for part in parts]
    records = np.concatenate(parts)
    owner = np.repeat(np.tile(np.arange(len(slow)), 2), sizes)
    floors = np.maximum([s.forgotten_before_ms for s in sequences], news.forgotten_before_ms[slow])  # (users,)

    above = (records["timestamp_ms"] > floors[owner]) | (floors[owner] == 0)
    records, owner = records[above], owner[above]
    order = np.lexsort((records["surface"], records["action"], records["item_id"], records["timestamp_ms"], owner))
    records, owner = records[order], owner[order]
    packed = records.view(np.dtype((np.void, RECORD_BYTES)))
    distinct = np.ones(len(records), bool)
    np.logical_or(packed[1:] != packed[:-1], owner[1:] != owner[:-1], out=distinct[1:])
    records, owner = records[distinct], owner[distinct]

    ends = np.searchsorted(owner, np.arange(len(slow)), side="right").tolist()
    start = 0
    for i, (u, end) in enumerate(zip(slow, ends, strict=True)):
        floor = int(floors[i])
        value = encode_sequence(UserSequence(floor, records[max(start, end - capacity) : end]))
        if value != old[u]:
            result[u] = value
        start = end


def fold(values: dict[bytes, bytes], batches: Iterable[Batch], capacity: int) -> dict[bytes, bytes]:
    """Merge batches into sequences held in a dict, in place; what changed. The stage without Kafka: simulation and tests."""
    chosen = list(batches)
    if not chosen:
        return {}
    news = combine(chosen)
    merged = merge_many([values.get(user) for user in news.users], news, capacity)
    changed = {user: value for user, value in zip(news.users, merged, strict=True) if value is not None}
    values.update(changed)
    return changed
