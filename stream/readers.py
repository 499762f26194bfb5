"""Log files -> chunks of columns: CSV and TSV (standard library), JSON lines (msgspec), Parquet (pyarrow, extra `parquet`).

What a file as a whole has wrong is a LogError; what a row has wrong is a BadRow in its chunk.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.errors import LogError, PrerequisiteError
from stream.columns import MISSING_TIME, BadRow, Chunk, Coded, ColumnMapping, TimestampUnit, coded

#: Rows at once: small enough for the processor's caches (measured: 8,000 read 40% faster than 50,000).
CHUNK_ROWS = 8_000
_BOM = b"\xef\xbb\xbf"


def read_csv(path: Path, mapping: ColumnMapping, delimiter: str, header: tuple[str, ...] | None) -> Iterator[Chunk]:
    """CSV as RFC 4180 has it, UTF-8. `header` names the columns of a file without a header line. Empty lines are no rows."""
    # What is not UTF-8 becomes surrogates, which make a value bad, so that one broken row does not hide the others.
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        names = list(header) if header else next(reader, [])
        places = _places(path, mapping.columns, names)
        rows: list[list[str]] = []
        numbers: list[int] = []
        broken: list[BadRow] = []
        for line, row in _csv_rows(reader):
            if isinstance(row, str):
                broken.append(BadRow(line, None, row))
            elif len(row) == len(names):
                rows.append(row)
                numbers.append(line)
            elif row:
                broken.append(BadRow(line, None, f"{len(row)} fields where the header has {len(names)}"))
            if len(rows) + len(broken) == CHUNK_ROWS:
                yield _text_chunk(rows, numbers, broken, places, mapping.timestamp_unit)
                rows, numbers, broken = [], [], []
        yield _text_chunk(rows, numbers, broken, places, mapping.timestamp_unit)


def read_json_lines(path: Path, mapping: ColumnMapping) -> Iterator[Chunk]:
    """One JSON object a line, UTF-8. Fields that the mapping does not name are ignored; blank lines are no rows."""
    columns = mapping.columns
    row_type = msgspec.defstruct(
        "Row", [(role, str | int | float | bool | None, None) for role in columns], rename=dict(columns), gc=False
    )
    decode = msgspec.json.Decoder(row_type).decode
    places = {role: place for place, role in enumerate(columns)}
    rows: list[Any] = []
    numbers: list[int] = []
    broken: list[BadRow] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                rows.append(msgspec.structs.astuple(decode(line.removeprefix(_BOM) if number == 1 else line)))
                numbers.append(number)
            except msgspec.ValidationError as error:
                broken.append(BadRow(number, None, str(error)))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                if line.strip():
                    broken.append(BadRow(number, None, f"not JSON: {error}"))
            if len(rows) + len(broken) == CHUNK_ROWS:
                yield _text_chunk(rows, numbers, broken, places, mapping.timestamp_unit)
                rows, numbers, broken = [], [], []
    yield _text_chunk(rows, numbers, broken, places, mapping.timestamp_unit)


def read_parquet(path: Path, mapping: ColumnMapping) -> Iterator[Chunk]:
    """Columns of text, integers, floats or booleans, dictionary-encoded or not; timestamps and dates for the time.

    Raises:
        PrerequisiteError: pyarrow is not installed.
    """
    try:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError:
        raise PrerequisiteError(
            f"{path}: reading Parquet needs pyarrow: pip install 'slipstream-embeddings[parquet]'"
        ) from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = mapping.columns
            _places(path, columns, list(file.schema_arrow.names))
            row = 1
            for batch in file.iter_batches(CHUNK_ROWS, columns=list(columns.values())):
                yield _arrow_chunk(path, batch, row, columns, mapping.timestamp_unit)
                row += batch.num_rows
    except pyarrow.ArrowException as error:
        raise LogError(f"{path}: cannot be read as Parquet: {error}") from None


def _csv_rows(reader: Any) -> Iterator[tuple[int, list[str] | str]]:
    """(line, fields) or (line, what is wrong), each with the number of the row's last line."""
    while True:
        try:
            for row in reader:
                yield reader.line_num, row
            return
        except csv.Error as error:
            yield reader.line_num, f"not CSV: {error}"


def _places(path: Path, columns: Mapping[str, str], names: list[str]) -> dict[str, int]:
    """Role -> place of its column in the file.

    Raises:
        LogError: a column is missing or there twice.
    """
    for role, column in columns.items():
        if names.count(column) != 1:
            what = "no column" if column not in names else "more than one column"
            raise LogError(
                f"{path}: {what} {column!r} for the {role}; its columns are {', '.join(names) or '(none)'}: "
                "say in the column mapping which hold what (options --user, --item, --action, --surface and --timestamp of "
                "commands, or `log_columns` in slipstream.toml)"
            )
    return {role: names.index(column) for role, column in columns.items()}


def _text_chunk(
    rows: Iterable[Any], numbers: list[int], broken: list[BadRow], places: Mapping[str, int], unit: TimestampUnit
) -> Chunk:
    by_place = list(zip(*rows, strict=True)) if numbers else [()] * (max(places.values()) + 1)
    columns = {role: coded(by_place[place]) for role, place in places.items() if role != "timestamp"}
    time_values = by_place[places["timestamp"]]
    times = None if unit == "iso" else _integers(time_values)
    if times is None:
        columns["timestamp"] = coded(time_values)
    return Chunk(np.array(numbers, np.int64), columns, times, unit, broken)


def _integers(values: tuple[Any, ...]) -> NDArray[np.int64] | None:
    """`(n,)` i64 if all values are integers, or all the text of one."""
    if not {type(value) for value in values} <= {str} and not {type(value) for value in values} <= {int}:
        return None
    try:
        return np.fromiter(map(int, values), np.int64, len(values))
    except (ValueError, OverflowError):
        return None


def _arrow_chunk(path: Path, batch: Any, first_row: int, columns: Mapping[str, str], unit: TimestampUnit) -> Chunk:
    import pyarrow

    found: dict[str, Coded] = {}
    times: NDArray[np.int64] | None = None
    for role, name in columns.items():
        column = batch.column(name)
        kind = column.type
        if role == "timestamp":
            if pyarrow.types.is_timestamp(kind) or pyarrow.types.is_date(kind):
                column = column.cast(pyarrow.timestamp("ms"), safe=False).cast(pyarrow.int64())
                unit = "ms"
            if pyarrow.types.is_signed_integer(column.type) and unit != "iso":
                times = column.cast(pyarrow.int64()).fill_null(MISSING_TIME).to_numpy()
                continue
        found[role] = _arrow_coded(column, f"{path}: column {name!r} for the {role}")
    numbers = np.arange(first_row, first_row + batch.num_rows)
    return Chunk(numbers, found, times, unit, [])


def _arrow_coded(column: Any, where: str) -> Coded:
    import pyarrow

    types = pyarrow.types
    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    readable = (types.is_string, types.is_large_string, types.is_string_view, types.is_integer, types.is_floating)
    if not any(is_kind(kind) for is_kind in (*readable, types.is_boolean, types.is_null)):
        raise LogError(f"{where} is of type {column.type}: cast it to text or integers")
    if types.is_null(kind) or types.is_string_view(kind):
        column = column.cast(pyarrow.string())
    if not types.is_dictionary(column.type):
        column = column.dictionary_encode()
    values = column.dictionary.to_pylist()
    codes = column.indices.cast(pyarrow.int32()).fill_null(len(values)).to_numpy()
    return Coded(codes, [*values, None])
