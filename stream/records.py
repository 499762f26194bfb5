"""Chunks of a log file's columns -> records, and the rows that are bad with what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigError
from schemas.event import MAX_TIMESTAMP_MS
from schemas.sequence import RECORD, Records
from schemas.vocabulary import OTHER, Vocabulary
from stream.columns import MISSING_TIME, BadRow, Chunk, ColumnMapping
from stream.values import PER_MS, BadValueError, outside, read_instant, read_item, read_name, read_user, shown

UnknownNames = Literal["reject", "other"]
#: Of a log's names that nobody knows, a message lists so many.
MAX_TOLD = 10


class RecordBuilder:
    """Turns chunks into records, and collects the users of good rows.

    Raises:
        ConfigError: a constant or a mapped name is not in the vocabulary.
    """

    def __init__(self, mapping: ColumnMapping, vocabulary: Vocabulary, unknown_names: UnknownNames) -> None:
        self._mapping = mapping
        self._user_index: dict[str, int] = {}
        self._names = {
            "action": _NameCodes("action", mapping.action_values, vocabulary.action_codes, unknown_names),
            "surface": _NameCodes("surface", mapping.surface_values, vocabulary.surface_codes, unknown_names),
        }
        self._constants = {
            role: self._names[role].known(name, "the column mapping gives every event the")
            for role, name in (("action", mapping.action_constant), ("surface", mapping.surface_constant))
            if name is not None
        }

    @property
    def users(self) -> list[str]:
        """The users so far; `build`'s indices point here."""
        return list(self._user_index)

    def build(self, chunk: Chunk) -> tuple[NDArray[np.int32], Records, list[BadRow]]:
        """User indices `(m,)` and records `(m,)` of the m good rows, and the bad rows, each in the file's order."""
        mapping = self._mapping
        bad = _BadRows(chunk, mapping.columns)
        records = np.zeros(len(chunk.numbers), RECORD)
        records["item_id"] = bad.judge("item", lambda value: read_item(value, mapping.item_ids))
        for role, names in self._names.items():
            constant = self._constants.get(role)
            if constant is None:
                names.meet(chunk.columns[role].values)
                records[role] = bad.judge(role, names.code)
            else:
                records[role] = constant
        if chunk.times is None:
            records["timestamp_ms"] = bad.judge("timestamp", lambda value: read_instant(value, mapping.timestamp_unit))
        else:
            records["timestamp_ms"] = bad.judge_times()
        # The user comes last: one whose rows are all bad is not a user of the log.
        user_index = bad.judge("user", self._index_of).astype(np.int32)
        return user_index[bad.good], records[bad.good], bad.rows()

    def _index_of(self, value: object) -> int:
        return self._user_index.setdefault(read_user(value), len(self._user_index))


class _NameCodes:
    """Names of one kind in a file -> codes of the vocabulary."""

    def __init__(
        self, kind: str, values: Mapping[str, str], codes: Mapping[str, int], unknown_names: UnknownNames
    ) -> None:
        self._kind, self._values, self._codes, self._unknown_names = kind, values, codes, unknown_names
        self._also: list[str] = []
        for value, name in values.items():
            self.known(name, f"the column mapping turns {value!r} into the")

    def known(self, name: str, who: str) -> int:
        if name not in self._codes:
            raise ConfigError(f"{who} {self._kind} {name!r}, which is not one of {', '.join(self._codes)}")
        return self._codes[name]

    def meet(self, values: Iterable[object]) -> None:
        """The distinct values that come next: a complaint about one tells all that are unknown, to be met at once."""
        named = [read_name(value) for value in values if value is not None and value != ""]
        self._also = [shown(text) for text in named if self._code_of(text) is None][:MAX_TOLD]

    def _code_of(self, text: str) -> int | None:
        return self._codes.get(self._values.get(text, text))

    def code(self, value: object) -> int:
        text = read_name(value)
        code = self._code_of(text)
        if code is not None:
            return code
        if self._unknown_names == "other":
            return self._codes[OTHER]
        others = [other for other in self._also if other != shown(text)]
        also = f", nor {'is' if len(others) == 1 else 'are'} {', '.join(others)}" if others else ""
        raise BadValueError(
            f"{shown(text)} is no {self._kind} that is known ({', '.join(self._codes)}){also}: map it to one of them, or "
            f"add it at the end of the vocabulary (setting `{self._kind}s`)"
        )


class _BadRows:
    """Judges a chunk column by column, and remembers the first thing that is wrong with each row."""

    def __init__(self, chunk: Chunk, columns: Mapping[str, str]) -> None:
        self.good = np.ones(len(chunk.numbers), bool)  # (n,)
        self._chunk = chunk
        self._columns = columns
        self._rows = list(chunk.broken)

    def judge(self, role: str, read: Callable[[object], int]) -> NDArray[np.int64]:
        """`(n,)` i64: `read` of each value of a row that is good so far; 0 where the row is, or now becomes, bad."""
        codes, values = self._chunk.columns[role]
        results = np.zeros(len(values), np.int64)
        problems: dict[int, str] = {}
        needed = range(len(values)) if self.good.all() else np.unique(codes[self.good]).tolist()
        for code in needed:
            try:
                results[code] = read(values[code])
            except BadValueError as problem:
                problems[code] = str(problem)
        if problems:
            for row in np.flatnonzero(np.isin(codes, list(problems)) & self.good).tolist():
                self._add(row, role, problems[int(codes[row])])
        return results[codes]

    def judge_times(self) -> NDArray[np.int64]:
        """`(n,)` i64 Unix milliseconds of the chunk's `times`; what is out of range makes its row bad."""
        times, unit = self._chunk.times, self._chunk.times_unit
        assert times is not None
        if unit == "s":
            latest, timestamp_ms = MAX_TIMESTAMP_MS // 1000, times
        else:
            latest, timestamp_ms = MAX_TIMESTAMP_MS, times // PER_MS[unit]
        good = (timestamp_ms > 0) & (timestamp_ms <= latest)
        for row in np.flatnonzero(~good & self.good).tolist():
            time = int(times[row])
            self._add(row, "timestamp", "the timestamp is missing" if time == MISSING_TIME else outside(time))
        result: NDArray[np.int64] = np.where(good, timestamp_ms, 0) * (1000 if unit == "s" else 1)
        return result

    def rows(self) -> list[BadRow]:
        return sorted(self._rows, key=lambda row: row.number)

    def _add(self, row: int, role: str, problem: str) -> None:
        self.good[row] = False
        self._rows.append(BadRow(int(self._chunk.numbers[row]), self._columns[role], problem))
