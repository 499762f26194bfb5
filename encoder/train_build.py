"""From a log of any length to training data on disk, in three passes: an external sort by user.

1. Events are appended to a file as they come, and users and items counted.
2. They are dealt out into one file for each range of users.
3. Each range is sorted in memory, and appended to the columns.

Memory grows with users and items and the size of a range, not with events; but for 24 bytes an event where the log is not in
order of time, since that order is then found in memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from encoder.train_data import COLUMNS, NOTES, TrainingData, open_data, seal
from schemas.errors import LogError
from schemas.sequence import RECORD, Records
from schemas.vocabulary import Vocabulary

_EVENT = np.dtype([("user", "<i8"), ("arrival", "<i8"), *[(name, RECORD[name]) for name in RECORD.names or ()]])
#: Events of a range of users, if no user has more: 36 B each, and as much again twice while it is sorted.
RANGE_EVENTS = 1 << 22
#: Ranges at most: as many files are open at once.
_MAX_RANGES = 256
_READ = 1 << 18
Chunk = tuple[NDArray[np.int32], Records]


def build_data(
    chunks: Iterable[Chunk],
    vocabulary: Vocabulary,
    directory: Path | str,
    source: str,
    range_events: int = RANGE_EVENTS,
) -> TrainingData:
    """The same as encoder.train_data.write_data of the log in memory, ordered by time.

    Args:
        chunks: `(m,)` users, numbered from 0, and `(m,)` records, in order of arrival.
        source: what is read, in words; kept in data.json.

    Raises:
        LogError: there are no events.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / NOTES).unlink(missing_ok=True)  # no older data lies here from now on
    with tempfile.TemporaryDirectory(prefix=".building-", dir=directory) as scratch:
        events, counts, item_ids = _append(chunks, Path(scratch))
        if not counts.sum():
            raise LogError("the log holds no events")
        arrival = _arrival(events)
        ranges = _ranges(counts, max(range_events, -(-int(counts.sum()) // _MAX_RANGES)))
        files = _deal(events, arrival, ranges, Path(scratch))
        columns = {
            name: open_memmap(directory / f"{name}.npy", mode="w+", dtype=np.int64, shape=(int(counts.sum()),))
            for name in COLUMNS
            if name not in ("item_ids", "starts")
        }
        at = 0
        for file in files:
            part = np.fromfile(file, _EVENT)
            part = part[np.lexsort([part[key] for key in ("surface", "action", "item_id", "timestamp_ms", "user")])]
            to = at + len(part)
            columns["items"][at:to] = np.searchsorted(item_ids, part["item_id"])
            columns["actions"][at:to], columns["surfaces"][at:to] = part["action"], part["surface"]
            columns["timestamps_ms"][at:to], columns["arrival"][at:to] = part["timestamp_ms"], part["arrival"]
            at = to
            file.unlink()
        for column in columns.values():
            column.flush()
        np.save(directory / "item_ids.npy", item_ids)
        np.save(directory / "starts.npy", np.concatenate([[0], np.cumsum(counts[counts > 0])]))
    seal(directory, vocabulary, source)
    return open_data(directory)


def _append(chunks: Iterable[Chunk], scratch: Path) -> tuple[Path, NDArray[np.int64], NDArray[np.int64]]:
    """The file of events, events of each user `(u,)`, and the distinct items, ascending."""
    file = scratch / "events"
    counts, item_ids, arrived = np.zeros(0, np.int64), np.zeros(0, np.int64), 0
    fresh: list[NDArray[np.int64]] = []
    with file.open("wb") as out:
        for users, records in chunks:
            events = np.empty(len(users), _EVENT)
            events["user"], events["arrival"] = users, np.arange(arrived, arrived + len(users))
            for name in RECORD.names or ():
                events[name] = records[name]
            events.tofile(out)
            arrived += len(users)
            more = np.bincount(users, minlength=len(counts))
            more[: len(counts)] += counts
            counts = more
            fresh.append(np.unique(records["item_id"]))
            if sum(map(len, fresh)) > len(item_ids) + _READ:
                item_ids, fresh = np.unique(np.concatenate([item_ids, *fresh])), []
    return file, counts, np.unique(np.concatenate([item_ids, *fresh]))


def _arrival(file: Path) -> NDArray[np.int64] | None:
    """Places of the events in order of time, `(n,)`; None if they are in it."""
    newest = None
    for events in _read(file):
        times = events["timestamp_ms"]
        if (times[1:] < times[:-1]).any() or (newest is not None and times[0] < newest):
            break
        newest = times[-1]
    else:
        return None
    times = np.concatenate([events["timestamp_ms"].copy() for events in _read(file)])
    places = np.empty(len(times), np.int64)
    places[np.argsort(times, kind="stable")] = np.arange(len(times))
    return places


def _ranges(counts: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """The first user of each range: as many users as have `most` events together, one at least."""
    before = np.concatenate([[0], np.cumsum(counts)])
    first = [0]
    while before[-1] - before[first[-1]] > most:
        first.append(max(first[-1] + 1, int(np.searchsorted(before, before[first[-1]] + most, side="right")) - 1))
    return np.array(first)


def _deal(file: Path, arrival: NDArray[np.int64] | None, ranges: NDArray[np.int64], scratch: Path) -> list[Path]:
    """A file of events for each range; `file` is removed."""
    files = [scratch / f"range-{number}" for number in range(len(ranges))]
    opened = [each.open("wb") for each in files]
    try:
        for events in _read(file):
            if arrival is not None:
                events["arrival"] = arrival[events["arrival"]]
            number = np.searchsorted(ranges, events["user"], side="right") - 1
            order = np.argsort(number, kind="stable")
            bounds = np.searchsorted(number[order], np.arange(len(ranges) + 1))
            for each in np.unique(number).tolist():
                events[order[bounds[each] : bounds[each + 1]]].tofile(opened[each])
    finally:
        for out in opened:
            out.close()
    file.unlink()
    return files


def _read(file: Path) -> Iterator[NDArray[np.void]]:
    with file.open("rb") as opened:
        while len(events := np.fromfile(opened, _EVENT, _READ)):
            yield events
