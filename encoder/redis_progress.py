"""Notices a Redis that lost writes: flushed, restarted empty or from an older copy, or replaced by a replica that was behind.

For each partition of the changelog a mark (schemas/progress.py) says up to where its records are in states. Only the partition's
owner moves it on, always after the states and before the offset is committed in Kafka; so a mark that is behind what was written
before, or gone, means that writes are gone too, and from where on the changelog must be read again. Reading it again is all that
there is to do: a state that is not lost is found up to date.

A mark is written only over the one that its writer knows. So a worker that was taken for dead cannot hide a loss from its
successor.

A mark speaks for the server that it is on. In a Redis Cluster each partition has one in every part of the slots (`PLACES`), so
that every master has some; what one of them lost counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

import redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from encoder.store_redis import RedisClient, reaching
from schemas.names import Names
from schemas.progress import Mark, decode_mark, encode_mark

#: Parts of a cluster's 16,384 slots. Who has two parts' worth of neighbouring slots has a mark for certain: 16 equal masters.
PLACES = 32
_SLOTS = 1 << 14
#: Each attempt that finds another mark than the one before met another writer.
_ATTEMPTS = 5

#: Answers what was there.
_REPLACE = """
-- KEYS[1]  the mark's key
-- ARGV[1]  what must be there; empty: nothing
-- ARGV[2]  the new mark
local found = redis.call('GET', KEYS[1]) or ''
if found == ARGV[1] and found ~= ARGV[2] then
  redis.call('SET', KEYS[1], ARGV[2])
end
return found
"""


class Lost(NamedTuple):
    """Writes that Redis no longer has.

    Attributes:
        next_offset: where to read again from.
        known_offset: up to where they had been written.
    """

    next_offset: int
    known_offset: int

    @property
    def everything(self) -> bool:
        return not self.next_offset


class _At(NamedTuple):
    """Where a mark is."""

    partition: int
    place: str


class _Move(NamedTuple):
    """What must be there, and what shall be."""

    at: _At
    known: bytes
    new: bytes


class RedisProgress:
    """The marks of one model's partitions that this worker owns. Every call may raise UnavailableError: call again later."""

    def __init__(self, client: RedisClient, names: Names, model_id: str, topic_id: bytes) -> None:
        self._client = client
        self._names = names
        self._model_id = model_id
        self._topic_id = topic_id
        self._places = places() if isinstance(client, redis.RedisCluster) else ("",)
        self._known: dict[_At, bytes] = {}

    def begin(self, committed: Mapping[int, int | None]) -> dict[int, Lost]:
        """Take partitions over.

        Args:
            committed: partition -> the group's committed offset, None if there is none.

        Returns:
            Those of which Redis holds less than that: read them from `next_offset`, the others from the committed offset.
        """
        found = {_At(partition, place): b"" for partition in committed for place in self._places}
        waiting = set(found)
        for _ in range(_ATTEMPTS):
            moves = [_Move(at, found[at], self._begun(found[at], committed[at.partition])) for at in waiting]
            stored = self._replace(moves)
            waiting = {move.at for move, value in zip(moves, stored, strict=True) if value != move.known}
            found |= {move.at: value for move, value in zip(moves, stored, strict=True)}
            if not waiting:
                break
        self._known |= {at: self._begun(value, committed[at.partition]) for at, value in found.items()}
        return _first(
            (at.partition, Lost(self._offset(self._known[at]), known_offset))
            for at in found
            if self._offset(self._known[at]) < (known_offset := committed[at.partition] or 0)
        )

    def advance(self, done: Mapping[int, int]) -> dict[int, Lost]:
        """Move marks on, before these offsets are committed; and look whether all other marks are still there.

        Args:
            done: partition -> the offset before which every record is in a state.

        Returns:
            Partitions of which Redis lost writes: commit none of `done` for them, and read them from `next_offset`.
        """
        moves = [
            _Move(at, known, self._mark(max(self._offset(known), done.get(at.partition, 0))))
            for at, known in self._known.items()
        ]
        behind: list[_Move] = []
        for move, found in zip(moves, self._replace(moves), strict=True):
            if found == move.known:
                self._known[move.at] = move.new
            elif self._offset(found) >= self._offset(move.known):
                self._known[move.at] = found  # it is another worker's now, who is further
            else:
                behind.append(_Move(move.at, found, self._mark(max(0, self._offset(found)))))
        lost = _first((m.at.partition, Lost(self._offset(m.new), self._offset(self._known[m.at]))) for m in behind)
        self._known |= {move.at: move.new for move in behind}
        self._replace(behind)  # at once, so that the next loss is noticed too
        return lost

    def forget(self, partitions: Collection[int]) -> None:
        """They are another worker's now."""
        self._known = {at: known for at, known in self._known.items() if at.partition not in partitions}

    def _begun(self, found: bytes, committed: int | None) -> bytes:
        return self._mark(min(committed or 0, max(0, self._offset(found))))

    def _mark(self, next_offset: int) -> bytes:
        return encode_mark(Mark(self._topic_id, next_offset))

    def _offset(self, value: bytes) -> int:
        """-1 if it is no mark of ours."""
        mark = decode_mark(value, self._topic_id)
        return mark.next_offset if mark else -1

    def _replace(self, moves: Sequence[_Move]) -> list[bytes]:
        """One round trip. What was there."""
        if not moves:
            return []
        with reaching(self._client):
            pipe = self._client.pipeline(transaction=False)
            for move in moves:
                key = self._names.progress_key(self._model_id, *move.at)
                pipe.execute_command("EVAL", _REPLACE, 1, key, move.known, move.new)
            replies: list[Any] = pipe.execute(raise_on_error=False)
            for reply in replies:
                if isinstance(reply, RedisError):
                    raise reply
        return [bytes(reply) for reply in replies]


def places() -> tuple[str, ...]:
    """Hash tags, one in each part of a cluster's slots."""
    found: dict[int, str] = {}
    for number in count():
        found.setdefault(key_slot(b"%d" % number) * PLACES // _SLOTS, str(number))
        if len(found) == PLACES:
            break
    return tuple(found[part] for part in range(PLACES))


def _first(lost: Iterable[tuple[int, Lost]]) -> dict[int, Lost]:
    """Of each partition what begins earliest."""
    found: dict[int, Lost] = {}
    for partition, gap in lost:
        found[partition] = min(gap, found.get(partition, gap))
    return found
