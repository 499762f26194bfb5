"""An event log in memory: columns of events in the order in which they arrive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.sequence import Records
from schemas.vocabulary import Vocabulary


@dataclass(frozen=True)
class EventLog:
    """n events of u users.

    Attributes:
        users: u user ids.
        user_index: `(n,)` i32, index into `users`.
        records: `(n,)` of RECORD; `timestamp_ms` ascending unless the source itself was out of order.
        vocabulary: what the records' action and surface codes mean.
    """

    users: list[str]
    user_index: NDArray[np.int32]
    records: Records
    vocabulary: Vocabulary

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, part: slice) -> EventLog:
        """A part of the events; `users` stays whole, so indices keep their meaning."""
        return EventLog(self.users, self.user_index[part], self.records[part], self.vocabulary)

    def split(self, share: float) -> tuple[EventLog, EventLog]:
        """The first `share` of the events, and the rest."""
        at = round(len(self) * share)
        return self[:at], self[at:]
