from __future__ import annotations

import numpy as np
import pytest

from encoder.evaluation.protocol import VISIT_GAP_MS, Split, cutoff_ms, groups, last_split, time_split
from schemas.errors import LogError
from tests.encoder.evaluation.logs import in_order, random_log


def _named(split: Split, log_users: list[str]) -> list[tuple[int, int, int]]:
    """(user of the log, time, events before) of each target."""
    data = split.data
    assert len(data.starts) - 1 == len(log_users), "every user has an event"
    events = split.targets.event
    return list(
        zip(
            split.targets.user.tolist(), data.timestamps_ms[events].tolist(), split.targets.before.tolist(), strict=True
        )
    )


def test_a_time_split_knows_no_future() -> None:
    log = random_log()
    at_ms = cutoff_ms(log, 0.7)
    split = time_split(log, at_ms)
    expected = [
        (user, time, i)
        for user, history in enumerate(in_order(log))
        for i, (time, _) in enumerate(history)
        if time >= at_ms and i
    ]
    assert _named(split, log.users) == expected
    assert split.train_log.records.tolist() == [r for r in log.records.tolist() if r[0] < at_ms]
    assert len(split.train_log) == 84, "seven tenths of 120"
    assert split.item_counts.sum() == split.train_counts.sum() == 84


def test_leave_last_out_leaves_out_the_last() -> None:
    log = random_log(seed=1)
    split = last_split(log)
    histories = in_order(log)
    assert _named(split, log.users) == [(u, h[-1][0], len(h) - 1) for u, h in enumerate(histories) if len(h) > 1]
    assert len(split.train_log) == len(log) - len(split.targets)
    assert in_order(split.train_log) == [h[:-1] if len(h) > 1 else h for h in histories]


def test_groups_are_what_they_say() -> None:
    log = random_log(users=25, events=160, items=40, seed=2)
    at_ms = cutoff_ms(log, 0.6)
    split = time_split(log, at_ms)
    found = groups(split)
    trained = set(split.train_log.records["item_id"].tolist())
    histories = in_order(log)
    expected: dict[str, list[bool]] = {name: [] for name in found}
    for user, time, before in _named(split, log.users):
        early = sum(t < at_ms for t, _ in histories[user])
        expected["warm"].append(early >= 5)
        expected["new_users"].append(early == 0)
        expected["new_items"].append(histories[user][before][1] not in trained)
        expected["visit_first"].append(time - histories[user][before - 1][0] > VISIT_GAP_MS)
    for name, mask in found.items():
        assert mask.tolist() == expected[name], name
        assert 0 < mask.sum() < len(mask), f"{name}: the log has both"


def test_a_log_that_cannot_be_split_is_refused() -> None:
    log = random_log()
    with pytest.raises(LogError, match="nothing to train on"):
        time_split(log, 0)
    with pytest.raises(LogError, match="no event to foresee"):
        time_split(log, int(log.records["timestamp_ms"].max()) + 1)
    one_each = random_log(users=3, events=3)
    one_each.user_index[:] = np.arange(3)
    with pytest.raises(LogError, match="no event to foresee"):
        last_split(one_each)
