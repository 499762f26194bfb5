"""Which users cross their candidates in one run of the graph. Pure.

A run is a rectangle, users x candidates: all of its users are padded to the most candidates and the longest past among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

#: What a run costs beside its candidates, in candidates. Measured on one core: 0.1 ms at nano, 0.2 ms at small, where a
#: candidate takes 3 and 16 us: 13 to 34.
RUN_CANDIDATES = 16.0
#: What a slot of the past costs, in candidates: to load it for its user, and to attend to it from each candidate.
LOAD_SLOT, ATTEND_SLOT = 0.02, 0.002
#: Larger runs are not faster per candidate on a CPU (measured from 128 on), and their attention weights are memory.
MAX_RUN_CANDIDATES = 4096


class Line(NamedTuple):
    """Some candidates of one user: a row of a run.

    Attributes:
        user: index of the user.
        start, stop: the candidates, of all users' together.
        length: slots of the user's past.
    """

    user: int
    start: int
    stop: int
    length: int

    @property
    def candidates(self) -> int:
        return self.stop - self.start


def runs(counts: Sequence[int], lengths: Sequence[int]) -> Iterator[list[Line]]:
    """Cut users into runs in which padding costs less than a run of its own would.

    Args:
        counts: candidates of each user; they stand one user after the other. Users without any take no part.
        lengths: slots of each user's past.
    """
    lines = sorted(_lines(counts, lengths), key=lambda line: (line.candidates, line.length))
    run: list[Line] = []
    cost, longest = 0.0, 0
    for line in lines:
        joined_longest = max(longest, line.length)
        joined = _cost(len(run) + 1, line.candidates, joined_longest)
        fits = (len(run) + 1) * line.candidates <= MAX_RUN_CANDIDATES
        if run and fits and joined <= cost + _cost(1, line.candidates, line.length):
            run.append(line)
            cost, longest = joined, joined_longest
            continue
        if run:
            yield run
        run, cost, longest = [line], _cost(1, line.candidates, line.length), line.length
    if run:
        yield run


def _lines(counts: Sequence[int], lengths: Sequence[int]) -> Iterator[Line]:
    start = 0
    for user, (count, length) in enumerate(zip(counts, lengths, strict=True)):
        for first in range(start, start + count, MAX_RUN_CANDIDATES):
            yield Line(user, first, min(first + MAX_RUN_CANDIDATES, start + count), length)
        start += count


def _cost(users: int, candidates: int, length: int) -> float:
    """Of a run of `users` rows padded to `candidates` and `length`, in candidates."""
    return RUN_CANDIDATES + users * (candidates * (1 + length * ATTEND_SLOT) + length * LOAD_SLOT)
