"""Notices a Redis that lost writes: flushed, restarted empty or from an older copy, or replaced by a replica that was behind.

For each partition of the changelog a mark (schemas/progress.py) says up to where its records are in states. Only the partition's
owner moves it on, always after the states and before the offset is committed in Kafka; so a mark that is behind what was written
before, or gone, means that writes are gone too, and from where on the changelog must be read again. Reading it again is all that
there is to do: a state that is not lost is found up to date.

A mark is written only over the one that its writer knows. So a worker that was taken for dead cannot hide a loss from its
successor.

With Redis Cluster a mark lies on one of the masters, and says nothing about the others: docs/operations.md says what to do there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from encoder.store_redis import RedisClient, reaching
from schemas.names import Names
from schemas.progress import Mark, decode_mark, encode_mark

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


class RedisProgress:
    """The marks of one model's partitions that this worker owns. Every call may raise UnavailableError: call again later."""

    def __init__(self, client: RedisClient, names: Names, model_id: str, topic_id: bytes) -> None:
        self._client = client
        self._names = names
        self._model_id = model_id
        self._topic_id = topic_id
        self._known: dict[int, bytes] = {}

    def begin(self, committed: Mapping[int, int | None]) -> dict[int, Lost]:
        """Take partitions over.

        Args:
            committed: partition -> the group's committed offset, None if there is none.

        Returns:
            Those of which Redis holds less than that: read them from `next_offset`, the others from the committed offset.
        """
        lost: dict[int, Lost] = {}
        for partition, next_offset in committed.items():
            known_offset = next_offset or 0
            found = b""
            for _ in range(_ATTEMPTS):
                mark = decode_mark(found, self._topic_id)
                start = min(known_offset, mark.next_offset if mark else 0)
                begun = self._mark(start)
                (stored,) = self._replace([(partition, found, begun)])
                if stored == found:
                    break
                found = stored
            self._known[partition] = begun
            if start < known_offset:
                lost[partition] = Lost(start, known_offset)
        return lost

    def advance(self, done: Mapping[int, int]) -> dict[int, Lost]:
        """Move marks on, before these offsets are committed; and look whether all other marks are still there.

        Args:
            done: partition -> the offset before which every record is in a state.

        Returns:
            Partitions of which Redis lost writes: commit none of `done` for them, and read them from `next_offset`.
        """
        moves = [
            (partition, known, self._mark(max(self._offset(known), done.get(partition, 0))))
            for partition, known in self._known.items()
        ]
        lost: dict[int, Lost] = {}
        for (partition, known, new), found in zip(moves, self._replace(moves), strict=True):
            if found == known:
                self._known[partition] = new
                continue
            if self._offset(found) >= self._offset(known):
                self._known[partition] = found  # it is another worker's now, who is further
                continue
            start = max(0, self._offset(found))
            lost[partition] = Lost(start, self._offset(known))
            # At once, so that the next loss is noticed too.
            self._known[partition] = self._mark(start)
            self._replace([(partition, found, self._known[partition])])
        return lost

    def forget(self, partitions: Collection[int]) -> None:
        """They are another worker's now."""
        for partition in partitions:
            self._known.pop(partition, None)

    def _mark(self, next_offset: int) -> bytes:
        return encode_mark(Mark(self._topic_id, next_offset))

    def _offset(self, value: bytes) -> int:
        """-1 if it is no mark of ours."""
        mark = decode_mark(value, self._topic_id)
        return mark.next_offset if mark else -1

    def _replace(self, moves: Sequence[tuple[int, bytes, bytes]]) -> list[bytes]:
        """One round trip. What was there, for each (partition, what must be there, what shall be)."""
        if not moves:
            return []
        with reaching(self._client):
            pipe = self._client.pipeline(transaction=False)
            for partition, known, new in moves:
                pipe.execute_command(
                    "EVAL", _REPLACE, 1, self._names.progress_key(self._model_id, partition), known, new
                )
            replies: list[Any] = pipe.execute(raise_on_error=False)
            for reply in replies:
                if isinstance(reply, RedisError):
                    raise reply
        return [bytes(reply) for reply in replies]
