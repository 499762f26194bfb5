from __future__ import annotations

import numpy as np

from encoder.windows import cut, histories, training_spans
from schemas.log import EventLog
from schemas.sequence import RECORD
from schemas.vocabulary import Vocabulary
from tests.encoder.trainings import circle_log


def test_histories_are_sequences() -> None:
    rows = [(30, 5, 1, 0), (10, 9, 2, 1), (10, 4, 2, 1), (20, 5, 3, 0)]
    log = EventLog(["a", "b", "c"], np.array([2, 0, 0, 2], np.int32), np.array(rows, RECORD), Vocabulary())
    data = histories(log)
    assert data.starts.tolist() == [0, 2, 4]
    assert data.item_ids[data.items].tolist() == [4, 9, 5, 5]
    assert data.actions.tolist() == [2, 2, 3, 1]
    assert data.arrival.tolist() == [2, 1, 3, 0]
    assert dict(zip(data.item_ids.tolist(), data.counts.tolist(), strict=True)) == {4: 1, 9: 1, 5: 2}


def test_windows_are_padded_and_know_their_targets() -> None:
    data = histories(circle_log(users=3, events=5))
    positive = np.arange(7) != 4
    windows = cut(data, np.array([[0, 5], [7, 9]]), positive)
    assert windows.real.tolist() == [[True] * 5, [True, True, False, False, False]]
    np.testing.assert_array_equal(windows.items[0], data.items[:5])
    np.testing.assert_array_equal(windows.items[1], [*data.items[7:9], 0, 0, 0])
    np.testing.assert_array_equal(windows.is_target[0], data.actions[1:5] != 4)
    assert windows.is_target[1].tolist() == [data.actions[8] != 4, False, False, False]


def test_an_epoch_holds_every_short_history_whole_and_long_ones_in_parts() -> None:
    log = circle_log(users=11, events=60)
    log = EventLog(log.users, log.user_index, log.records, log.vocabulary)[: 11 * 10]  # ten events each
    data = histories(log)
    spans = training_spans(data, 24, 12, np.random.default_rng(0))  # one window of 12 inputs at most
    epoch = np.concatenate([next(spans) for _ in range(11)])
    assert sorted(epoch.tolist()) == [[10 * i, 10 * i + 10] for i in range(11)]
    long = histories(circle_log(users=2, events=60))
    epoch = next(training_spans(long, 24, 24 * 6, np.random.default_rng(0)))
    assert (epoch[:, 1] - epoch[:, 0] == 25).all()
    assert len(epoch) == 6, "three windows of 24 targets hold 59"


def test_windows_of_like_length_share_a_batch_and_none_is_left_out_for_long() -> None:
    rng = np.random.default_rng(1)
    log = circle_log(users=60, events=40)
    log = EventLog(log.users, log.user_index, log.records, log.vocabulary)
    kept = np.concatenate([np.flatnonzero(log.user_index == user)[: rng.integers(2, 40)] for user in range(60)])
    data = histories(EventLog(log.users, log.user_index[kept], log.records[kept], log.vocabulary))
    spans = training_spans(data, 24, 96, rng)
    seen: set[int] = set()
    alike = 0
    for _ in range(60):
        batch = next(spans)
        inputs = batch[:, 1] - batch[:, 0] - 1
        assert len(batch) * inputs.max() <= 96
        alike += inputs.max() <= 3 or 2 * inputs.min() >= inputs.max()
        seen |= set(np.searchsorted(data.starts, batch[:, 0], side="right").tolist())
    assert len(seen) == 60
    assert alike > 45, "but for the few batches that left-overs are in"
