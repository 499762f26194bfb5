"""Pure core of ingest: raw messages in, packed batches per partition out.

Letters: m valid events, n users among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.batch import HEADER_BYTES, Batch, encode_batch
from schemas.errors import EventError
from schemas.event import Event, Parser
from schemas.sequence import RECORD, RECORD_BYTES
from stream.partitioner import partitions_of

_USER_BYTES = 22  # of a user's columns in a batch (schemas.batch), without the key


class PackedBatch(NamedTuple):
    """A message for `engagement-batches`."""

    partition: int
    value: bytes
    users: int
    records: int


class Rejected(NamedTuple):
    """A raw message that is no event. `at` is its place in what was packed, `reason` one of EventError.REASONS."""

    at: int
    reason: str
    error: str


class Packed(NamedTuple):
    """`events` counts the valid events and forget requests, duplicates too."""

    batches: list[PackedBatch]
    rejected: list[Rejected]
    events: int


def pack(
    values: Sequence[bytes | None],
    arrived_ms: Sequence[int],
    parser: Parser,
    partitions: int,
    max_batch_bytes: int,
) -> Packed:
    """Validate raw messages and regroup their events by user and partition.

    Args:
        values: raw messages, in any order.
        arrived_ms: when each arrived, the broker's time, Unix ms.
        partitions: of `engagement-batches`.
        max_batch_bytes: no batch is larger, unless one record with its user's key is.
    """
    parse = parser.parse
    index: dict[bytes, int] = {}  # user -> number, by first appearance
    user_of: list[int] = []  # of each event
    columns: list[tuple[int, int, int, int]] = []
    event_arrived: list[int] = []
    forgets: list[tuple[int, int, int]] = []  # (user, before_ms, arrived_ms)
    rejected: list[Rejected] = []
    for i, (value, arrived) in enumerate(zip(values, arrived_ms, strict=True)):
        try:
            parsed = parse(value, arrived)
        except EventError as error:
            rejected.append(Rejected(i, error.reason, str(error)))
            continue
        user = index.setdefault(parsed.user, len(index))
        if isinstance(parsed, Event):
            user_of.append(user)
            columns.append(parsed[1:])
            event_arrived.append(arrived)
        else:
            forgets.append((user, parsed.before_ms, arrived))
    batches = _batches(index, user_of, columns, event_arrived, forgets, partitions, max_batch_bytes) if index else []
    return Packed(batches, rejected, len(columns) + len(forgets))


def _batches(
    index: dict[bytes, int],
    user_of: list[int],
    columns: list[tuple[int, int, int, int]],
    event_arrived: list[int],
    forgets: list[tuple[int, int, int]],
    partitions: int,
    max_batch_bytes: int,
) -> list[PackedBatch]:
    users = list(index)
    partition = partitions_of(users, partitions)  # (n,)
    by_partition = np.argsort(partition, kind="stable")  # (n,) user numbers, partition after partition
    place = np.empty(len(users), np.int64)  # (n,) user number -> its place in that order
    place[by_partition] = np.arange(len(users))

    records = np.array(columns, RECORD)  # (m,)
    owner = place[np.array(user_of, np.int64)]  # (m,)
    arrived = np.full(len(users), np.iinfo(np.int64).max)  # (n,) in order of place, as all that follows
    np.minimum.at(arrived, owner, np.array(event_arrived, np.int64))
    floors = np.zeros(len(users), np.int64)
    for user, before_ms, at_ms in forgets:
        floors[place[user]] = max(floors[place[user]], before_ms)
        arrived[place[user]] = min(arrived[place[user]], at_ms)

    owner, records = _sorted_distinct(owner, records)
    counts = np.bincount(owner, minlength=len(users)).astype(np.uint32)
    keys = [users[u] for u in by_partition.tolist()]
    user_ends = np.searchsorted(partition[by_partition], np.arange(partitions), side="right")  # (partitions,)
    record_ends = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])[user_ends]
    packed: list[PackedBatch] = []
    first_user = first_record = 0
    for p, (end_user, end_record) in enumerate(zip(user_ends.tolist(), record_ends.tolist(), strict=True)):
        if end_user > first_user:
            some = slice(first_user, end_user)
            whole = Batch(keys[some], arrived[some], floors[some], counts[some], records[first_record:end_record])
            packed += [
                PackedBatch(p, encode_batch(part), len(part.users), len(part.records))
                for part in split(whole, max_batch_bytes)
            ]
        first_user, first_record = end_user, end_record
    return packed


def _sorted_distinct(owner: NDArray[np.int64], records: NDArray[np.void]) -> tuple[NDArray[np.int64], NDArray[np.void]]:
    """Events sorted by owner and then by all fields of the record, each once."""
    order = np.lexsort((records["surface"], records["action"], records["item_id"], records["timestamp_ms"], owner))
    owner, records = owner[order], records[order]
    packed = records.view(np.dtype((np.void, RECORD_BYTES)))
    distinct = np.ones(len(records), bool)
    np.logical_or(packed[1:] != packed[:-1], owner[1:] != owner[:-1], out=distinct[1:])
    return owner[distinct], records[distinct]


def batch_bytes(batch: Batch) -> int:
    """The size of its message."""
    keys = sum(map(len, batch.users))
    return HEADER_BYTES + len(batch.users) * _USER_BYTES + keys + len(batch.records) * RECORD_BYTES


def split(batch: Batch, max_bytes: int) -> list[Batch]:
    """The batch as parts of at most `max_bytes`: halves, as often as needed; a single user's records are halved too."""
    if batch_bytes(batch) <= max_bytes or (len(batch.users) == 1 and len(batch.records) < 2):
        return [batch]
    if len(batch.users) > 1:
        user = len(batch.users) // 2
        record = int(batch.counts[:user].sum())
        left = _part(batch, slice(0, user), slice(0, record))
        right = _part(batch, slice(user, None), slice(record, None))
    else:
        half = len(batch.records) // 2
        rest = len(batch.records) - half
        left = batch._replace(records=batch.records[:half], counts=np.array([half], np.uint32))
        right = batch._replace(records=batch.records[half:], counts=np.array([rest], np.uint32))
    return split(left, max_bytes) + split(right, max_bytes)


def _part(batch: Batch, users: slice, records: slice) -> Batch:
    return Batch(
        batch.users[users],
        batch.arrived_ms[users],
        batch.forgotten_before_ms[users],
        batch.counts[users],
        batch.records[records],
    )
