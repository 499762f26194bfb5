"""Training data: users' histories, and batches of windows cut from them. numpy only.

A window is up to `context + 1` successive events of one user: the first `context` of them are inputs, each but the first is the
target of the one before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.errors import LogError
from schemas.log import EventLog

#: Batches are made of windows of like length, sorted within this many batches, so that little is padding.
_SORTED_BATCHES = 8


@dataclass(frozen=True)
class Histories:
    """Events by user, in the order of a sequence: by time, then item, action, surface.

    Attributes:
        item_ids: `(m,)` i64, the distinct items, ascending; events name them by index.
        items, actions, surfaces: `(n,)` i64 columns of the events.
        arrival: `(n,)` i64, each event's place in the log.
        starts: `(u + 1,)` i64: user i's events are [starts[i], starts[i + 1]).
    """

    item_ids: NDArray[np.int64]
    items: NDArray[np.int64]
    actions: NDArray[np.int64]
    surfaces: NDArray[np.int64]
    arrival: NDArray[np.int64]
    starts: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """`(m,)` events of each item."""
        return np.bincount(self.items, minlength=len(self.item_ids))


def histories(log: EventLog) -> Histories:
    """Group a log by user. Users without events are left out."""
    records, users = log.records, log.user_index
    order = np.lexsort((records["surface"], records["action"], records["item_id"], records["timestamp_ms"], users))
    item_ids, items = np.unique(records["item_id"], return_inverse=True)
    sorted_users = users[order]
    starts = np.flatnonzero(np.concatenate([[True], sorted_users[1:] != sorted_users[:-1]]))
    return Histories(
        item_ids,
        items[order].astype(np.int64),
        records["action"][order].astype(np.int64),
        records["surface"][order].astype(np.int64),
        order,
        np.append(starts, len(order)) if len(order) else np.zeros(1, np.int64),
    )


@dataclass(frozen=True)
class Windows:
    """A batch of windows, right-padded with index 0. W = T + 1.

    Attributes:
        items, actions, surfaces: `(B, W)` i64.
        real: `(B, W)` bool.
        is_target: `(B, T)` bool: event t + 1 is there, and what a model should foresee.
        arrival: `(B, W)` i64.
    """

    items: NDArray[np.int64]
    actions: NDArray[np.int64]
    surfaces: NDArray[np.int64]
    real: NDArray[np.bool_]
    is_target: NDArray[np.bool_]
    arrival: NDArray[np.int64]


def cut(data: Histories, spans: NDArray[np.int64], positive: NDArray[np.bool_]) -> Windows:
    """Gather windows.

    Args:
        spans: `(B, 2)` i64, [start, end) of each among the events.
        positive: `(a,)` bool by action code: which events are targets.
    """
    lengths = spans[:, 1] - spans[:, 0]
    steps = np.arange(lengths.max())
    real = steps < lengths[:, None]
    at = np.where(real, spans[:, :1] + steps, 0)
    items, actions, surfaces = (np.where(real, column[at], 0) for column in (data.items, data.actions, data.surfaces))
    is_target = real[:, 1:] & positive[np.minimum(actions[:, 1:], len(positive) - 1)]
    return Windows(items, actions, surfaces, real, is_target, np.where(real, data.arrival[at], -1))


def training_spans(
    data: Histories, context: int, batch_windows: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Batches of spans `(B, 2)` for ever, epoch by epoch. In an epoch each history gives as many windows as it holds, cut at
    random places: a whole history if it fits.

    Raises:
        LogError: no user has two events.
    """
    lengths = np.diff(data.starts)
    users = np.flatnonzero(lengths >= 2)
    if not len(users):
        raise LogError("the log has no user with two events or more: there is nothing to learn from")
    per_user = np.ceil((lengths[users] - 1) / context).astype(np.int64)
    rows = np.repeat(users, per_user)
    window = np.minimum(lengths[rows], context + 1)
    while True:
        first = data.starts[rows] + rng.integers(0, lengths[rows] - window + 1)
        spans = np.stack([first, first + window], axis=1)[rng.permutation(len(rows))]
        batches: list[NDArray[np.int64]] = []
        for at in range(0, len(spans), batch_windows * _SORTED_BATCHES):
            chunk = spans[at : at + batch_windows * _SORTED_BATCHES]
            chunk = chunk[np.argsort(chunk[:, 1] - chunk[:, 0], kind="stable")]
            batches.extend(chunk[i : i + batch_windows] for i in range(0, len(chunk), batch_windows))
        for index in rng.permutation(len(batches)):
            yield batches[index]
