"""What the watch shows, and the arithmetic behind it. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from stream.letters import DeadLetter

#: (topic, partition) -> offset.
Offsets = Mapping[tuple[str, int], int]
#: What a stage's lag and throughput count.
UNITS = {"ingest": "messages", "sequence": "batches", "encode": "changelog offsets"}
MAX_ERROR_CHARS = 300


class Source(msgspec.Struct, frozen=True):
    """Kafka or Redis, as seen from here.

    Attributes:
        said: why it does not answer; empty while it does.
        answered_ms: when it last did; None: never.
    """

    ok: bool
    said: str
    answered_ms: int | None


class Stage(msgspec.Struct, frozen=True):
    """
    Attributes:
        lag: what it has not worked off; None: not known yet.
        per_s: what it worked off a second, lately.
        lags: (Unix ms, lag) over the last minutes.
    """

    name: str
    unit: str
    lag: int | None
    per_s: float | None
    lags: list[tuple[int, int]]


class Freshness(msgspec.Struct, frozen=True):
    """Raw event to readable state.

    Attributes:
        p50_ms, p99_ms: of `measured` states, written in the last `window_s`; None without any.
        waiting: sampled records that are in no state yet.
        waiting_ms: since the arrival of the oldest of them.
        curve: (Unix ms, p50 ms, p99 ms).
    """

    window_s: int
    measured: int
    p50_ms: float | None
    p99_ms: float | None
    waiting: int
    waiting_ms: int | None
    curve: list[tuple[int, float, float]]


class Letter(msgspec.Struct, frozen=True):
    """A dead letter; anybody may have written what its fields quote."""

    place: str
    buried_ms: int
    reason: str
    source: str
    error: str


class Letters(msgspec.Struct, frozen=True):
    """
    Attributes:
        total: in the topic now; None: not known yet.
        new: since the watch began.
        newest: newest first.
    """

    total: int | None
    new: int
    newest: list[Letter]


class Model(msgspec.Struct, frozen=True):
    """
    Attributes:
        active: the model that rankers read, None if none is, or it is not known.
        note: what keeps recommendations from being shown; empty if nothing does, or it is not known.
    """

    active: str | None
    note: str


class Snapshot(msgspec.Struct, frozen=True):
    """One moment of the deployment. `arriving_per_s`: raw messages that reach Kafka a second."""

    now_ms: int
    prefix: str
    kafka: Source
    redis: Source
    model: Model
    freshness: Freshness
    arriving_per_s: float | None
    stages: list[Stage]
    letters: Letters


class Records(NamedTuple):
    """How far a topic's reader has come in one partition.

    Attributes:
        last: offset of the newest record; -1: none was seen.
        passed: everything before it was looked at.
    """

    last: int
    passed: int


def lag_of(ends: Offsets, committed: Offsets, seen: Mapping[tuple[str, int], Records] | None = None) -> int:
    """Offsets between what a group has committed and the end; a partition without a commit counts from offset 0.

    Args:
        seen: for a topic that is written in transactions: behind its last record there are only markers, which nobody reads.
    """
    lag = 0
    for where, end in ends.items():
        at = committed.get(where, 0)
        known = (seen or {}).get(where)
        if known is not None and known.passed >= end and at > known.last >= 0:
            continue
        lag += max(0, end - at)
    return lag


class Rates:
    """How fast offsets move on, over the last seconds."""

    def __init__(self, over_s: float = 10.0) -> None:
        self._over_s = over_s
        self._samples: deque[tuple[float, Mapping[str, Offsets]]] = deque()

    def add(self, now_s: float, offsets: Mapping[str, Offsets]) -> None:
        """
        Args:
            offsets: by what they count.
        """
        self._samples.append((now_s, offsets))
        while self._samples[0][0] < now_s - self._over_s:
            self._samples.popleft()

    def per_s(self, name: str) -> float | None:
        """None until it was sampled twice."""
        samples = [(at_s, offsets[name]) for at_s, offsets in self._samples if name in offsets]
        if len(samples) < 2 or samples[-1][0] <= samples[0][0]:
            return None
        (began_s, began), (ended_s, ended) = samples[0], samples[-1]
        moved = sum(ended[where] - at for where, at in began.items() if where in ended)
        return max(0, moved) / (ended_s - began_s)


class LagHistory:
    """A stage's lag over the last minutes, the greatest of each span."""

    def __init__(self, span_ms: int = 5_000, kept_ms: int = 300_000) -> None:
        self._span_ms, self._kept_ms = span_ms, kept_ms
        self._points: deque[tuple[int, int]] = deque()

    def add(self, now_ms: int, lag: int) -> None:
        at_ms = (now_ms // self._span_ms + 1) * self._span_ms
        if self._points and self._points[-1][0] == at_ms:
            lag = max(lag, self._points.pop()[1])
        self._points.append((at_ms, lag))
        while self._points[0][0] < now_ms - self._kept_ms:
            self._points.popleft()

    @property
    def points(self) -> list[tuple[int, int]]:
        return list(self._points)


def letter_of(letter: DeadLetter) -> Letter:
    said = letter.said
    source = f"{said.provenance.topic}[{said.provenance.partition}]@{said.provenance.offset}" if said else ""
    return Letter(
        str(letter.place),
        letter.buried_ms,
        letter.reason,
        source,
        said.error[:MAX_ERROR_CHARS] if said else "somebody else wrote this message here",
    )


def places_before(before: Sequence[int] | None, now: Sequence[int]) -> list[int | None]:
    """For each item of a ranked list its place in the list before, from 0; None: it was not in it. Its own place if there was no
    list before: nothing has moved."""
    if before is None:
        return list(range(len(now)))
    place = {item: at for at, item in enumerate(before)}
    return [place.get(item) for item in now]
