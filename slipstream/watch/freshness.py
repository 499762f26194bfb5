"""Freshness, sampled from outside: how long a raw event took to be readable in its user's state. Pure.

The changelog's newest records say which users' states are about to change, and when the raw event arrived at the broker
(`timestamp_ms`). A state's header says which record it holds (its fence) and when it was written. So a sample is taken when a
record is seen, and is measured when the user's header shows it, exactly if it shows that very record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.state import Header

#: Sampled records that are not readable yet, at most: so many headers are read at a look.
MAX_WAITING = 100
#: A record that is not readable after so long is counted as waiting no more: its user was forgotten, or no encoder comes.
GIVE_UP_MS = 15 * 60_000


class Seen(NamedTuple):
    """A changelog record; `timestamp_ms` is the arrival of the oldest raw event that it folded in."""

    user: bytes
    partition: int
    offset: int
    timestamp_ms: int


class Measured(NamedTuple):
    written_ms: int
    freshness_ms: int


class _Waiting(NamedTuple):
    record: Seen
    #: The state has been looked at since, and did not hold the record.
    looked_at: bool


class Waiting:
    """Sampled records that are not known to be readable, one a user."""

    def __init__(self) -> None:
        self._by_user: dict[bytes, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._by_user)

    @property
    def users(self) -> list[bytes]:
        return list(self._by_user)

    def oldest_ms(self, now_ms: int) -> int | None:
        """How long the oldest of them has waited since its raw event arrived; None if there is none."""
        arrived_ms = [waiting.record.timestamp_ms for waiting in self._by_user.values()]
        return max(0, now_ms - min(arrived_ms)) if arrived_ms else None

    def see(self, records: Iterable[Seen]) -> None:
        """Sample these. A user who waits already goes on waiting for the record of before."""
        for record in records:
            if len(self._by_user) >= MAX_WAITING:
                return
            self._by_user.setdefault(record.user, _Waiting(record, False))

    def measure(self, headers: Mapping[bytes, Header | None], topic_id: bytes, now_ms: int) -> list[Measured]:
        """What has become readable; it no longer waits.

        A state that was written again since the record is of use only if it was looked at between the two: then the measure is
        too high, by the time between two looks at most. Otherwise nothing is known, and the sample is dropped: it was fast.

        Args:
            headers: of users' states now; None: there is no state that can be read.
            topic_id: of the changelog.
        """
        measured = []
        for user, header in headers.items():
            waiting = self._by_user.get(user)
            if waiting is None:
                continue
            record = waiting.record
            if header is not None and _holds(header, record, topic_id):
                del self._by_user[user]
                if header.fence.offset == record.offset or waiting.looked_at:
                    # The clocks of two machines may differ by a little.
                    measured.append(Measured(header.encoded_ms, max(0, header.encoded_ms - record.timestamp_ms)))
            elif now_ms - record.timestamp_ms > GIVE_UP_MS:
                del self._by_user[user]
            else:
                self._by_user[user] = _Waiting(record, True)
        return measured


def _holds(header: Header, record: Seen, topic_id: bytes) -> bool:
    fence = header.fence
    return fence.topic_id == topic_id and fence.partition == record.partition and fence.offset >= record.offset


class Point(NamedTuple):
    """Freshness of the states written in one span of time, ms."""

    at_ms: int
    p50_ms: float
    p99_ms: float


class FreshnessCurve:
    """The measures of the last minutes.

    Args:
        span_ms: a point of the curve stands for so long.
        kept_ms: and the curve for so long.
    """

    def __init__(self, span_ms: int = 5_000, kept_ms: int = 300_000) -> None:
        self._span_ms, self._kept_ms = span_ms, kept_ms
        self._measured: deque[Measured] = deque()

    def add(self, measured: Iterable[Measured], now_ms: int) -> None:
        self._measured.extend(measured)
        while self._measured and self._measured[0].written_ms < now_ms - self._kept_ms:
            self._measured.popleft()

    def since(self, from_ms: int) -> NDArray[np.int64]:
        """Measures of states written from then on, ms."""
        return np.array([m.freshness_ms for m in self._measured if m.written_ms >= from_ms], np.int64)

    def points(self, now_ms: int) -> Iterator[Point]:
        """Oldest first; a span without a measure has no point."""
        spans: dict[int, list[int]] = {}
        for m in self._measured:
            if m.written_ms >= now_ms - self._kept_ms:
                spans.setdefault(m.written_ms // self._span_ms, []).append(m.freshness_ms)
        for span, values in sorted(spans.items()):
            p50, p99 = np.percentile(values, (50, 99)).tolist()
            yield Point((span + 1) * self._span_ms, p50, p99)
