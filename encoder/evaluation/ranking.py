"""The rank of each target among all items.

An item that scores like the target ranks above or below it by a seeded order of the items, which knows nothing of ids or truth: a
scorer that gives every item the same score gets what chance gets. Seen items are those of all earlier events of the user; the
target's own item competes even if it was seen.

Letters: n targets, b of them in a batch, m items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoder.evaluation.protocol import Targets
from encoder.windows import Histories
from schemas.errors import ContractError

Rows = NDArray[np.int64]
#: Scores of all items `(b, m)` for some of the targets `(b,)`, by their index.
Scorer = Callable[[Rows], NDArray[np.floating[Any]]]

_BATCH_BYTES = 16 << 20  # of a batch's scores, f32


class Ranks(NamedTuple):
    """`(n,)` i64 each, 0 is best. `unseen`: among items that the user has not seen; `all`: among all."""

    unseen: NDArray[np.int64]
    all: NDArray[np.int64]


def rank_all(
    data: Histories,
    targets: Targets,
    scorers: Mapping[str, Scorer],
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Ranks]:
    """Rank every target by every scorer.

    Args:
        seed: of the order of ties.
        progress: called with the number of targets done.

    Raises:
        ContractError: a score is not a finite number.
    """
    n, m = len(targets), len(data.item_ids)
    tie_order = np.random.default_rng(seed).permutation(m)
    ranks = {name: Ranks(np.empty(n, np.int64), np.empty(n, np.int64)) for name in scorers}
    for rows, seen_row, seen_item in _batches(data, targets, max(1, _BATCH_BYTES // (4 * m))):
        truth = data.items[targets.event[rows]]
        for name, score in scorers.items():
            scores = score(rows)
            if not np.isfinite(scores.sum()):
                raise ContractError(f"{name}: its scores are no finite numbers, so they rank nothing: train it again")
            above, seen_above = _above(scores, truth, seen_row, seen_item, tie_order)
            ranks[name].all[rows] = above
            ranks[name].unseen[rows] = above - seen_above
        if progress:
            progress(int(rows[-1]) + 1)
    return ranks


def _batches(data: Histories, targets: Targets, size: int) -> Iterator[tuple[Rows, Rows, Rows]]:
    """Rows of each batch, and the distinct seen items of its targets as pairs (row of the batch, item)."""
    m = len(data.item_ids)
    user_of = data.owners
    is_first = np.zeros(len(data.items), bool)  # of its item in its user's history
    is_first[np.unique(user_of * m + data.items, return_index=True)[1]] = True
    for at in range(0, len(targets), size):
        rows = np.arange(at, min(at + size, len(targets)))
        row, place = ragged(targets.before[rows])
        event = targets.start[rows][row] + place
        row, event = row[is_first[event]], event[is_first[event]]
        yield rows, row, data.items[event]


def _above(
    scores: NDArray[np.floating[Any]], truth: Rows, seen_row: Rows, seen_item: Rows, tie_order: Rows
) -> tuple[Rows, Rows]:
    """How many items rank above the true one, and how many of those were seen, `(b,)` each."""
    true = np.take_along_axis(scores, truth[:, None], axis=1)  # (b, 1)
    above = np.count_nonzero(scores > true, axis=1)
    tied = np.flatnonzero(np.count_nonzero(scores == true, axis=1) > 1)
    if len(tied):
        before = tie_order < tie_order[truth[tied]][:, None]
        above[tied] += np.count_nonzero((scores[tied] == true[tied]) & before, axis=1)
    seen_score, rival = scores[seen_row, seen_item], true[seen_row, 0]
    wins = (seen_score > rival) | ((seen_score == rival) & (tie_order[seen_item] < tie_order[truth[seen_row]]))
    return above, np.bincount(seen_row[wins], minlength=len(scores))


def ragged(lengths: Rows) -> tuple[Rows, Rows]:
    """Rows of different lengths, laid end to end: the row of each entry, and its place in the row."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
