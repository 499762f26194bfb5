"""What is in the dead letters: counts by reason and source, and the newest of them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from stream.letters import DeadLetter


@dataclass
class Count:
    """Letters of one reason from one topic.

    Attributes:
        repeated: those that had been replayed before, and came back.
        replayed: those that were replayed since; `slipstream dead-letters replay` passes over them.
        first_ms, last_ms: when the oldest and the newest were buried, Unix ms.
    """

    letters: int = 0
    repeated: int = 0
    replayed: int = 0
    first_ms: int = 1 << 62
    last_ms: int = 0

    def add(self, letter: DeadLetter, replayed: bool) -> None:
        self.letters += 1
        self.repeated += bool(letter.said and letter.said.replays)
        self.replayed += replayed
        self.first_ms = min(self.first_ms, letter.buried_ms)
        self.last_ms = max(self.last_ms, letter.buried_ms)


@dataclass
class Report:
    """`counts` by (reason, source topic); `newest` begins with the newest letter. Values are left out."""

    counts: dict[tuple[str, str], Count] = field(default_factory=dict)
    newest: list[DeadLetter] = field(default_factory=list)

    @property
    def letters(self) -> int:
        return sum(count.letters for count in self.counts.values())


def report_on(
    letters: Iterable[DeadLetter],
    was_replayed: Callable[[DeadLetter], bool],
    most: int,
    reasons: Collection[str] = (),
    since_ms: int = 0,
    until_ms: int = 1 << 62,
) -> Report:
    """Count the letters of these reasons (none: of all) and of [since, until), and keep the newest `most`.

    Args:
        was_replayed: whether a replay has sent this letter (stream.letters_marks).
    """
    report = Report()
    newest: list[tuple[tuple[int, int, int], DeadLetter]] = []  # a heap, the oldest first
    for letter in letters:
        if (reasons and letter.reason not in reasons) or not since_ms <= letter.buried_ms < until_ms:
            continue
        source = letter.said.provenance.topic if letter.said else ""
        report.counts.setdefault((letter.reason, source), Count()).add(letter, was_replayed(letter))
        age = (letter.buried_ms, letter.place.offset, letter.place.partition)  # no two letters have the same
        if len(newest) < most:
            heapq.heappush(newest, (age, letter._replace(value=None)))
        elif newest and age > newest[0][0]:
            heapq.heapreplace(newest, (age, letter._replace(value=None)))
    report.newest = [letter for _, letter in sorted(newest, reverse=True)]
    return report
