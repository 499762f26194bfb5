"""Event logs: parts keep their users' meaning."""

from __future__ import annotations

import numpy as np

from schemas.log import EventLog
from schemas.sequence import RECORD
from schemas.vocabulary import Vocabulary


def made_log(n: int) -> EventLog:
    records = np.zeros(n, RECORD)
    records["timestamp_ms"] = range(1, n + 1)
    return EventLog(["a", "b", "c"], np.arange(n, dtype=np.int32) % 3, records, Vocabulary())


def test_split_loses_nothing_and_keeps_indices() -> None:
    log = made_log(11)
    first, rest = log.split(0.8)
    assert (len(first), len(rest)) == (9, 2)
    assert first.users is rest.users is log.users
    assert np.concatenate([first.user_index, rest.user_index]).tolist() == log.user_index.tolist()
    assert np.concatenate([first.records, rest.records]).tobytes() == log.records.tobytes()


def test_split_at_the_ends() -> None:
    log = made_log(3)
    assert [len(part) for part in log.split(0.0)] == [0, 3]
    assert [len(part) for part in log.split(1.0)] == [3, 0]
    assert len(log[:0]) == 0
