"""Event logs by name or file: MovieLens, CSV, TSV, JSON lines and Parquet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigError, LogError
from schemas.log import EventLog
from schemas.sequence import NO_RECORDS, Records
from schemas.vocabulary import Vocabulary
from stream.columns import BadRow, Chunk, ColumnMapping
from stream.movielens import DEFAULT_SEED, FILES, read_movielens
from stream.readers import read_csv, read_json_lines, read_parquet
from stream.records import RecordBuilder, UnknownNames
from stream.ties import spread_ties

MAX_EXAMPLES = 5
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")
SUFFIXES = (*_DELIMITERS, *_JSON_LINES, ".parquet")
# Seconds since 1970 of the years 1973 to 5138 lie here. As milliseconds, it is 1970 to 1973, before anybody logged events.
_MISREAD_MS = range(10**8, 10**11)


@dataclass(frozen=True)
class LogOptions:
    """How to read a log.

    Attributes:
        on_bad_rows: `raise` at the first, or `skip` and count them.
        order: `time`: sorted by timestamp, ties as in the file; `source`: as in the file, which then must be how events arrived.
        spread_ties: order ties by a seeded hash and give a user's tied events successive milliseconds (stream.ties), as is done
            for MovieLens. For files whose timestamps are coarse; needs order `time`.
        seed: of the ties' order.
        unknown_names: an action or surface that the vocabulary lacks makes its row bad, or becomes `other`.
        csv_header: the columns' names in a CSV or TSV file that has no header line.
        csv_delimiter: instead of what the suffix says.
    """

    on_bad_rows: Literal["raise", "skip"] = "raise"
    order: Literal["time", "source"] = "time"
    spread_ties: bool = False
    seed: int = DEFAULT_SEED
    unknown_names: UnknownNames = "reject"
    csv_header: tuple[str, ...] | None = None
    csv_delimiter: str | None = None

    def __post_init__(self) -> None:
        if self.spread_ties and self.order != "time":
            raise ConfigError("spreading ties orders a log by time: leave `order` at `time`, or ties alone")
        if self.csv_delimiter is not None and len(self.csv_delimiter) != 1:
            raise ConfigError(f"a CSV delimiter is one character, not {self.csv_delimiter!r}")


@dataclass(frozen=True)
class LoadedLog:
    """A log, and what was left out of it.

    Attributes:
        skipped: bad rows that were left out.
        skipped_by_column: the same by column; `""` for rows that could not be parsed at all.
        examples: what was wrong with the first few.
    """

    log: EventLog
    skipped: int = 0
    skipped_by_column: dict[str, int] = field(default_factory=dict)
    examples: tuple[str, ...] = ()


def read_log(
    source: str,
    vocabulary: Vocabulary | None = None,
    columns: ColumnMapping | None = None,
    options: LogOptions | None = None,
) -> EventLog:
    """The log of `load_log` alone."""
    return load_log(source, vocabulary, columns, options).log


def load_log(
    source: str,
    vocabulary: Vocabulary | None = None,
    columns: ColumnMapping | None = None,
    options: LogOptions | None = None,
) -> LoadedLog:
    """Read the log that `source` names: `ml-100k`, `ml-1m`, or a file by its suffix (`SUFFIXES`).

    MovieLens knows its columns; `columns` is for files, defaults to an event's field names, and `options` to LogOptions().

    Raises:
        ConfigError: the source, the mapping or an option cannot be used.
        PrerequisiteError: a package for it is not installed; the message names the extra.
        LogError: the file cannot be read, has a bad row (file, line or row, column, what to do), or no events.
    """
    vocabulary = vocabulary or Vocabulary()
    options = options or LogOptions()
    if source in FILES:
        return LoadedLog(read_movielens(source, vocabulary, options.seed))
    rows = LogRows(source, vocabulary, columns, options)
    user_index, records = [np.empty(0, np.int32)], [NO_RECORDS]
    for chunk_users, chunk_records in rows:
        user_index.append(chunk_users)
        records.append(chunk_records)
    log = EventLog(rows.users, np.concatenate(user_index), np.concatenate(records), vocabulary)
    return LoadedLog(_ordered(log, options), rows.skipped.total(), dict(rows.skipped), tuple(rows.examples))


class LogRows:
    """The events of a log file as they come, a few thousand at a time: for those who need not have them all at once.

    Iterate once: `(m,)` i32 indices into `users`, and `(m,)` records. Neither ordered by time nor with ties spread.

    Attributes:
        skipped: bad rows left out so far, by column (LoadedLog.skipped_by_column).
        examples: what was wrong with the first few.
    """

    def __init__(self, source: str, vocabulary: Vocabulary, columns: ColumnMapping | None, options: LogOptions) -> None:
        """
        Raises:
            ConfigError: the mapping cannot be used.
        """
        self._path, self._options = Path(source), options
        self._columns = columns or ColumnMapping()
        self._builder = RecordBuilder(self._columns, vocabulary, options.unknown_names)
        self.skipped: Counter[str] = Counter()
        self.examples: list[str] = []

    @property
    def users(self) -> list[str]:
        """The users so far."""
        return self._builder.users

    def __iter__(self) -> Iterator[tuple[NDArray[np.int32], Records]]:
        """
        Raises:
            ConfigError, PrerequisiteError, LogError: as load_log.
        """
        path, newest_ms = self._path, None
        for chunk in _chunks(path, self._columns, self._options):
            users, records, bad = self._builder.build(chunk)
            if bad and self._options.on_bad_rows == "raise":
                raise LogError(
                    f"{_described(path, bad[0])}. Correct it, or have bad rows skipped and counted (on_bad_rows = skip)"
                )
            self.skipped.update(row.column or "" for row in bad)
            self.examples += [_described(path, row) for row in bad[: MAX_EXAMPLES - len(self.examples)]]
            if len(records):
                newest_ms = max(int(records["timestamp_ms"].max()), newest_ms or 0)
            yield users, records
        if newest_ms is None:
            said = (
                f": all {self.skipped.total()} rows are bad, the first is {self.examples[0]}" if self.examples else ""
            )
            raise LogError(f"{path}: holds no events{said}")
        _check_unit(path, newest_ms)


def _chunks(path: Path, columns: ColumnMapping, options: LogOptions) -> Iterator[Chunk]:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(
            f"{str(path)!r} is no log that Slipstream knows: name one of {', '.join(FILES)}, or a file ending in "
            f"{', '.join(SUFFIXES)}"
        )
    try:
        if suffix in _DELIMITERS:
            delimiter = options.csv_delimiter or _DELIMITERS[suffix]
            yield from read_csv(path, columns, delimiter, options.csv_header)
        elif suffix in _JSON_LINES:
            yield from read_json_lines(path, columns)
        else:
            yield from read_parquet(path, columns)
    except OSError as error:
        raise LogError(f"{path}: {error.strerror or error}") from None


def _described(path: Path, row: BadRow) -> str:
    unit = "row" if path.suffix.lower() == ".parquet" else "line"
    column = "" if row.column is None else f", column {row.column!r}"
    return f"{path}: {unit} {row.number}{column}: {row.problem}"


def _ordered(log: EventLog, options: LogOptions) -> EventLog:
    if options.order == "source":
        return log
    if options.spread_ties:
        return spread_ties(log, options.seed)
    timestamp_ms = log.records["timestamp_ms"]
    if (timestamp_ms[1:] >= timestamp_ms[:-1]).all():
        return log
    order = np.argsort(timestamp_ms, kind="stable")
    return EventLog(log.users, log.user_index[order], log.records[order], log.vocabulary)


def _check_unit(path: Path, newest_ms: int) -> None:
    if newest_ms in _MISREAD_MS:
        raise LogError(
            f"{path}: its newest timestamp would be {newest_ms} ms after 1970, which is before 1973: the mapping's "
            "`timestamp_unit` is too small, `s` perhaps"
        )
