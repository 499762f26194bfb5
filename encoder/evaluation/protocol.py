"""Which events are targets, what may be trained on, and the groups that targets are told apart by.

Global time split: every event from T on with an earlier event of its user is a target; training sees what came before T alone;
the state sees everything of its user before the target, also what came after T. Leave-last-out: each user's last event is the
target and everything else is trained on, so a training sees other users' future: comparable with papers, kinder than life.

Users' ties must have been ordered so that nothing leaks (stream.ties.spread_ties).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from encoder.windows import Histories, histories
from schemas.errors import LogError
from schemas.log import EventLog

Protocol = Literal["time", "last"]
DEFAULT_SHARE = 0.9
#: A user with so many events before T is warm.
WARM_EVENTS = 5
#: A longer pause begins a new visit.
VISIT_GAP_MS = 30 * 60 * 1000


@dataclass(frozen=True)
class Targets:
    """n events that are to be foreseen.

    Attributes:
        event: `(n,)` i64, their places among the events of the histories.
        user: `(n,)` i64, index of the user among the histories' users.
        start: `(n,)` i64, the place of the user's first event.
    """

    event: NDArray[np.int64]
    user: NDArray[np.int64]
    start: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.event)

    @property
    def before(self) -> NDArray[np.int64]:
        """`(n,)` i64, events of the user before each, at least 1."""
        return self.event - self.start

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Targets:
        return Targets(self.event[rows], self.user[rows], self.start[rows])


@dataclass(frozen=True)
class Split:
    """A log, and what of it is for what.

    Attributes:
        data: all events of the log by user.
        trained: `(events,)` bool by place among `data`: what may be trained on; of each user, the first ones.
        train_log: the same events as a log.
        cutoff_ms: T; None for leave-last-out.
    """

    protocol: Protocol
    data: Histories
    trained: NDArray[np.bool_]
    train_log: EventLog
    targets: Targets
    cutoff_ms: int | None

    @property
    def train_counts(self) -> NDArray[np.int64]:
        """`(u,)` i64, events of each user that may be trained on."""
        return np.add.reduceat(self.trained, self.data.starts[:-1], dtype=np.int64)

    @property
    def item_counts(self) -> NDArray[np.int64]:
        """`(m,)` i64, events of each item that may be trained on."""
        return np.bincount(self.data.items[self.trained], minlength=len(self.data.item_ids))


def cutoff_ms(log: EventLog, share: float = DEFAULT_SHARE) -> int:
    """T: the quantile of the timestamps, rounded up to a millisecond."""
    return int(np.ceil(np.quantile(log.records["timestamp_ms"], share)))


def time_split(log: EventLog, at_ms: int) -> Split:
    """The global time split at T.

    Raises:
        LogError: nothing comes before T, or nothing after it can be foreseen.
    """
    data = histories(log)
    trained = data.timestamps_ms < at_ms
    if not trained.any():
        raise LogError(f"no event of the log is before {at_ms} ms: there is nothing to train on")
    return _split("time", log, data, trained, ~trained, at_ms)


def last_split(log: EventLog) -> Split:
    """Leave-last-out: of every user with two events or more, the last one.

    Raises:
        LogError: no user has two events.
    """
    data = histories(log)
    is_target = np.zeros(len(data.items), bool)
    is_target[data.starts[1:][np.diff(data.starts) >= 2] - 1] = True
    return _split("last", log, data, ~is_target, is_target, None)


def _split(
    protocol: Protocol,
    log: EventLog,
    data: Histories,
    trained: NDArray[np.bool_],
    is_target: NDArray[np.bool_],
    at_ms: int | None,
) -> Split:
    targets = targets_of(data, is_target)
    if not len(targets):
        raise LogError(
            "the log has no event to foresee: a target needs an earlier event of its user"
            + ("" if at_ms is None else f", and none is at or after {at_ms} ms")
        )
    in_log = np.zeros(len(log), bool)
    in_log[data.arrival[trained]] = True
    train_log = EventLog(log.users, log.user_index[in_log], log.records[in_log], log.vocabulary)
    return Split(protocol, data, trained, train_log, targets, at_ms)


def targets_of(data: Histories, is_target: NDArray[np.bool_]) -> Targets:
    """Those of the events with an earlier event of their user."""
    user_of = data.owners
    event = np.flatnonzero(is_target)
    event = event[event > data.starts[user_of[event]]]
    return Targets(event, user_of[event], data.starts[user_of[event]])


def groups(split: Split) -> dict[str, NDArray[np.bool_]]:
    """Targets by kind, `(n,)` bool each.

    warm: of users with `WARM_EVENTS` events before T; new_users: of those with none; new_items: items first seen after T, or not
    trained on; visit_first: the first event after a pause of more than `VISIT_GAP_MS`.
    """
    data, targets = split.data, split.targets
    times = data.timestamps_ms
    found = {
        "new_items": split.item_counts[data.items[targets.event]] == 0,
        "visit_first": times[targets.event] - times[targets.event - 1] > VISIT_GAP_MS,
    }
    if split.protocol == "last":
        return found
    before_t = split.train_counts[targets.user]
    return {"warm": before_t >= WARM_EVENTS, "new_users": before_t == 0, **found}
