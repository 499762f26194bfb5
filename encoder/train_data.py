"""A log as trainings read it: histories, in memory or as columns on disk that are mapped, and the parts of it by arrival.

On disk it is a directory: `data.json` and one .npy file for each column of encoder.windows.Histories. A training maps the columns
and touches the events of its batches, so a log may be larger than memory. What is held in memory grows with users and items.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from encoder.windows import Histories, histories
from schemas.errors import LogError
from schemas.log import EventLog
from schemas.vocabulary import Vocabulary

NOTES = "data.json"
COLUMNS = tuple(field.name for field in fields(Histories))
#: Events that one pass over the columns takes at once.
_BLOCK = 1 << 20


@dataclass(frozen=True)
class TrainingData:
    """
    Attributes:
        histories: of the whole log.
        fingerprint: of vocabulary and events: the same log has the same, whether in memory or on disk.
        directory: where it lies, if on disk.
    """

    histories: Histories
    vocabulary: Vocabulary
    fingerprint: str
    directory: Path | None = None

    def __len__(self) -> int:
        return len(self.histories.items)


class _Notes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of data.json."""

    format: Literal["slipstream-training-data"] = "slipstream-training-data"
    version: Literal[1] = 1
    vocabulary: Vocabulary
    fingerprint: str
    source: str = ""


@dataclass(frozen=True)
class Part:
    """What arrived before some place of the log.

    Attributes:
        ends: `(u,)` i64: user i's events are [starts[i], ends[i]).
        counts: `(m,)` i64, events of each item; an item with none is not known yet.
        events, users: how many it holds.
    """

    ends: NDArray[np.int64]
    counts: NDArray[np.int64]
    events: int
    users: int


def in_memory(log: EventLog) -> TrainingData:
    data = histories(log)
    return TrainingData(data, log.vocabulary, _fingerprint(data, log.vocabulary))


def write_data(data: TrainingData, directory: Path | str) -> TrainingData:
    """Write the columns into a directory, and open them from there."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / NOTES).unlink(missing_ok=True)  # no older data lies here from now on
    for name in COLUMNS:
        np.save(directory / f"{name}.npy", getattr(data.histories, name))
    seal(directory, data.vocabulary, "")
    return open_data(directory)


def seal(directory: Path, vocabulary: Vocabulary, source: str) -> None:
    """Write data.json, with which a directory of columns is complete.

    Args:
        source: what it was made from, in words.
    """
    notes = _Notes(vocabulary=vocabulary, fingerprint=_fingerprint(_map(directory), vocabulary), source=source)
    (directory / NOTES).write_bytes(msgspec.json.format(msgspec.json.encode(notes), indent=2))


def source_of(directory: Path) -> str | None:
    """What the training data in a directory was made from; None if there is none."""
    try:
        return msgspec.json.decode((directory / NOTES).read_bytes(), type=_Notes).source
    except (OSError, msgspec.DecodeError):
        return None


def open_data(directory: Path | str) -> TrainingData:
    """Map what `write_data` wrote.

    Raises:
        LogError: there is none, or it is incomplete.
    """
    directory = Path(directory)
    try:
        notes = msgspec.json.decode((directory / NOTES).read_bytes(), type=_Notes)
        data = _map(directory)
    except (OSError, ValueError, EOFError, msgspec.DecodeError) as error:
        raise LogError(f"{directory}: no training data ({error}): prepare it from the log again") from None
    columns = {name: getattr(data, name) for name in COLUMNS}
    if any(column.dtype != np.int64 or column.ndim != 1 for column in columns.values()):
        raise LogError(f"{directory}: the columns are not int64: prepare it from the log again")
    if len({len(column) for name, column in columns.items() if name not in ("item_ids", "starts")}) > 1:
        raise LogError(f"{directory}: the columns differ in length: prepare it from the log again")
    return TrainingData(data, notes.vocabulary, notes.fingerprint, directory)


def _map(directory: Path) -> Histories:
    # As plain arrays over the mapping: numpy's own class for it makes each small gather dearer.
    return Histories(
        **{name: np.asarray(np.load(directory / f"{name}.npy", mmap_mode="r", allow_pickle=False)) for name in COLUMNS}
    )


def part(data: Histories, before: int) -> Part:
    """The events of places 0 to `before` of the log.

    Where a history's order is not that of arrival (a log that was not sorted by time), it ends with the first event that arrived
    later: nothing later is ever in it, but earlier events may be left out.
    """
    starts = data.starts[:-1]
    ends = np.array(data.starts[1:])
    counts = np.zeros(len(data.item_ids), np.int64)
    for first, last in _user_blocks(np.asarray(data.starts)):
        at, to = int(data.starts[first]), int(data.starts[last])
        late = np.flatnonzero(data.arrival[at:to] >= before) + at
        user = np.searchsorted(ends[first:last], late, side="right") + first  # before any end is moved
        late_user, index = np.unique(user, return_index=True)
        ends[late_user] = late[index]
        kept = np.repeat(ends[first:last], np.diff(data.starts[first : last + 1])) > np.arange(at, to)
        counts += np.bincount(data.items[at:to][kept], minlength=len(counts))
    lengths = ends - starts
    return Part(ends, counts, int(lengths.sum()), int((lengths > 0).sum()))


def _user_blocks(starts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of users with about _BLOCK events each."""
    first, users = 0, len(starts) - 1
    while first < users:
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + _BLOCK, side="right")) - 1)
        yield first, min(last, users)
        first = last


def _fingerprint(data: Histories, vocabulary: Vocabulary) -> str:
    digest = blake2b(msgspec.json.encode(vocabulary), digest_size=8)
    for name in COLUMNS:
        column = getattr(data, name)
        for at in range(0, len(column), _BLOCK):
            digest.update(np.ascontiguousarray(column[at : at + _BLOCK], "<i8").data)
    return digest.hexdigest()
