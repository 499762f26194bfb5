"""Users' histories made by hand."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from schemas.sequence import RECORD, Records


def events(times: Iterable[int], seed: int = 0) -> Records:
    """One event at each time; the rest follows from time and seed."""
    times_ms = np.array(list(times), np.int64)
    records = np.zeros(len(times_ms), RECORD)
    records["timestamp_ms"] = times_ms
    mixed = (times_ms + 1) * 2_654_435_761 + seed * 97
    records["item_id"] = mixed % 500
    records["action"] = mixed // 7 % 6 + 1
    records["surface"] = mixed // 11 % 6
    return records
