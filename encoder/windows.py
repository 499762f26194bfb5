"""Training data: users' histories, and batches of windows cut from them. numpy only.

A window is up to `context + 1` successive events of one user: the first `context` of them are inputs, each but the first is the
target of the one before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoder.features import gap_buckets, previous_in_window
from schemas.errors import LogError
from schemas.log import EventLog

#: Windows share a batch with others of their length: full ones, those of half to full length, and so on, this many halvings.
_HALVINGS = 3


@dataclass(frozen=True)
class Histories:
    """Events by user, in the order of a sequence: by time, then item, action, surface.

    Attributes:
        item_ids: `(m,)` i64, the distinct items, ascending; events name them by index.
        items, actions, surfaces, timestamps_ms: `(n,)` i64 columns of the events.
        arrival: `(n,)` i64, each event's place in the log.
        starts: `(u + 1,)` i64: user i's events are [starts[i], starts[i + 1]).
    """

    item_ids: NDArray[np.int64]
    items: NDArray[np.int64]
    actions: NDArray[np.int64]
    surfaces: NDArray[np.int64]
    timestamps_ms: NDArray[np.int64]
    arrival: NDArray[np.int64]
    starts: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """`(m,)` events of each item."""
        return np.bincount(self.items, minlength=len(self.item_ids))

    @property
    def owners(self) -> NDArray[np.int64]:
        """`(n,)` the user of each event."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


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
        records["timestamp_ms"][order].astype(np.int64),
        order,
        np.append(starts, len(order)) if len(order) else np.zeros(1, np.int64),
    )


@dataclass(frozen=True)
class Windows:
    """A batch of windows, right-padded with index 0. W = T + 1.

    Attributes:
        items, actions, surfaces: `(B, W)` i64.
        gaps: `(B, W)` i64, the time since the event before (encoder.features.gap_buckets), none for a window's first.
        real: `(B, W)` bool.
        is_target: `(B, T)` bool: event t + 1 is there, and what a model should foresee.
        arrival: `(B, W)` i64.
    """

    items: NDArray[np.int64]
    actions: NDArray[np.int64]
    surfaces: NDArray[np.int64]
    gaps: NDArray[np.int64]
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
    times = data.timestamps_ms[at]
    gaps = np.where(real, gap_buckets(times, previous_in_window(times)), 0)
    is_target = real[:, 1:] & positive[np.minimum(actions[:, 1:], len(positive) - 1)]
    return Windows(items, actions, surfaces, gaps, real, is_target, np.where(real, data.arrival[at], -1))


def training_spans(
    data: Histories,
    context: int,
    batch_tokens: int,
    rng: np.random.Generator,
    ends: NDArray[np.int64] | None = None,
) -> Iterator[NDArray[np.int64]]:
    """Batches of spans `(B, 2)` for ever, epoch by epoch. In an epoch each history gives as many windows as it holds, cut at
    random places: a whole history if it fits. Windows of like length share a batch. What is left over of the shorter ones joins
    the longer ones, what is left over of those the next epoch.

    Args:
        batch_tokens: a batch's windows times their greatest length is at most this, unless it is one window.
        ends: `(u,)` i64: of user i only the events [starts[i], ends[i]).

    Raises:
        LogError: no user has two events.
    """
    lengths = (data.starts[1:] if ends is None else ends) - data.starts[:-1]
    users = np.flatnonzero(lengths >= 2)
    if not len(users):
        raise LogError("the log has no user with two events or more: there is nothing to learn from")
    per_user = np.ceil((lengths[users] - 1) / context).astype(np.int64)
    rows = np.repeat(users, per_user)
    window = np.minimum(lengths[rows], context + 1)
    most = np.array([max(1, context >> i) for i in range(_HALVINGS, -1, -1)])  # inputs of a bucket's windows
    left = np.empty((0, 2), np.int64)
    while True:
        first = data.starts[rows] + rng.integers(0, lengths[rows] - window + 1)
        spans = np.stack([first, first + window], axis=1)[rng.permutation(len(rows))]
        spans = np.concatenate([left, spans])
        bucket = np.searchsorted(most, spans[:, 1] - spans[:, 0] - 1)
        left = spans[:0]
        batches: list[NDArray[np.int64]] = []
        for i, inputs in enumerate(most.tolist()):
            size = max(1, batch_tokens // inputs)
            together = np.concatenate([left, spans[bucket == i]])
            full = len(together) // size * size
            batches.extend(together[at : at + size] for at in range(0, full, size))
            left = together[full:]
        for index in rng.permutation(len(batches)):
            yield batches[index]
