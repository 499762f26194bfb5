"""Logs larger than memory: columns on disk, of which a training touches what its batches need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from encoder import train_data
from encoder.checkpoint import load_checkpoint
from encoder.train_build import build_data
from encoder.train_data import COLUMNS, NOTES, in_memory, open_data, part, source_of, write_data
from encoder.training import train
from encoder.windows import histories
from schemas.errors import LogError
from schemas.log import EventLog
from schemas.sequence import Records
from tests.encoder.trainings import CONFIG, circle_log


def test_a_training_from_disk_is_the_training_from_memory(tmp_path: Path) -> None:
    log, config = circle_log(), replace(CONFIG, max_steps=6, validation=0.1)
    mapped = write_data(in_memory(log), tmp_path / "data")
    for name in COLUMNS:
        column = getattr(mapped.histories, name)
        assert isinstance(column.base, np.memmap), f"{name} is mapped"
        assert not column.flags.writeable
    assert mapped.fingerprint == in_memory(log).fingerprint
    a, b = train(log, config, tmp_path / "a"), train(open_data(tmp_path / "data"), config, tmp_path / "b")
    assert a.metrics == b.metrics
    assert (a.events, a.users, a.items) == (b.events, b.users, b.items)
    a_saved, b_saved = load_checkpoint(tmp_path / "a"), load_checkpoint(tmp_path / "b")
    for name in a_saved.weights:
        np.testing.assert_array_equal(a_saved.weights[name], b_saved.weights[name])
    np.testing.assert_array_equal(a_saved.catalogue_counts, b_saved.catalogue_counts)


@pytest.mark.parametrize("block", [1, 37, 1 << 20])
def test_a_part_is_the_log_up_to_a_place(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(train_data, "_BLOCK", block)
    log = circle_log(users=7, events=30)
    whole = in_memory(log).histories
    for before in (0, 1, 50, 101, 209, 210):
        got, expected = part(whole, before), histories(log[:before])
        assert (got.events, got.users) == (len(expected.items), len(expected.starts) - 1)
        np.testing.assert_array_equal(whole.item_ids[got.counts > 0], expected.item_ids)
        np.testing.assert_array_equal(got.counts[got.counts > 0], expected.counts)
        kept = np.concatenate([np.arange(s, e) for s, e in zip(whole.starts[:-1], got.ends, strict=True)])
        np.testing.assert_array_equal(whole.arrival[kept], expected.arrival)


def test_a_part_of_a_log_out_of_order_holds_nothing_later() -> None:
    log = circle_log(users=7, events=30)
    order = np.random.default_rng(0).permutation(len(log))
    whole = in_memory(EventLog(log.users, log.user_index[order], log.records[order], log.vocabulary)).histories
    got = part(whole, 150)
    kept = np.concatenate([np.arange(s, e) for s, e in zip(whole.starts[:-1], got.ends, strict=True)])
    assert 0 < len(kept) == got.events
    assert (whole.arrival[kept] < 150).all()


def test_fingerprints_tell_logs_apart() -> None:
    log = circle_log()
    others = [in_memory(circle_log(seed=1)), in_memory(log[:-1])]
    assert len({in_memory(log).fingerprint, *(other.fingerprint for other in others)}) == 3


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="no training data"):
        open_data(tmp_path / "nothing")
    write_data(in_memory(circle_log()), tmp_path)
    file = tmp_path / "items.npy"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(LogError, match="no training data"):
        open_data(tmp_path)
    np.save(file, np.zeros(5, np.int64))
    with pytest.raises(LogError, match="differ in length"):
        open_data(tmp_path)
    np.save(file, np.zeros(5, np.int32))
    with pytest.raises(LogError, match="not int64"):
        open_data(tmp_path)


# ---- built from a stream


def in_chunks(log: EventLog, size: int) -> Iterator[tuple[NDArray[np.int32], Records]]:
    for at in range(0, len(log), size):
        yield log.user_index[at : at + size], log.records[at : at + size]


@pytest.mark.parametrize("range_events", [1, 57, 1 << 20])
@pytest.mark.parametrize("ordered", [True, False])
def test_data_is_built_from_a_stream_as_from_memory(tmp_path: Path, range_events: int, ordered: bool) -> None:
    log = circle_log(users=11, events=30)
    rng = np.random.default_rng(2)
    log.records["timestamp_ms"] -= log.records["timestamp_ms"] % 5000  # with ties
    order = np.sort(rng.permutation(len(log))[: len(log) - 20])
    if not ordered:
        order = rng.permutation(order)
    file = EventLog(log.users, log.user_index[order], log.records[order], log.vocabulary)
    built = build_data(in_chunks(file, 13), log.vocabulary, tmp_path, "a file", range_events)
    by_time = np.argsort(file.records["timestamp_ms"], kind="stable")
    expected = in_memory(EventLog(log.users, file.user_index[by_time], file.records[by_time], log.vocabulary))
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(built.histories, name), getattr(expected.histories, name), err_msg=name)
    assert built.fingerprint == expected.fingerprint
    assert source_of(tmp_path) == "a file"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([NOTES, *(f"{name}.npy" for name in COLUMNS)])


def test_users_without_events_and_empty_chunks_do_no_harm(tmp_path: Path) -> None:
    log = circle_log(users=5, events=10)
    kept = ~np.isin(log.user_index, (0, 3))
    file = EventLog(log.users, log.user_index[kept], log.records[kept], log.vocabulary)
    built = build_data([*in_chunks(file, 7), (file.user_index[:0], file.records[:0])], log.vocabulary, tmp_path, "", 8)
    assert built.fingerprint == in_memory(file).fingerprint
    with pytest.raises(LogError, match="no events"):
        build_data([], log.vocabulary, tmp_path, "")
    with pytest.raises(LogError, match="no training data"):
        open_data(tmp_path)
