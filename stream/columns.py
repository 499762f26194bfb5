"""A log file's columns: which of them hold what, and the chunks in which readers hand them over.

Columns travel as distinct values and codes, so that each distinct value is checked once and the rest is numpy.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigError

TimestampUnit = Literal["s", "ms", "us", "ns", "iso"]
ItemIds = Literal["auto", "integer", "string"]

#: A timestamp that a file leaves out, in `Chunk.times`.
MISSING_TIME = -(1 << 63)


@dataclass(frozen=True)
class ColumnMapping:
    """Which columns of a file hold an event, and how to read them.

    Attributes:
        user, item, timestamp: names of columns.
        action, surface: names of columns; not used where there is a constant.
        action_constant, surface_constant: for logs that have no such column: the name that every event gets.
        action_values, surface_values: what the file calls an action or surface -> its name in the vocabulary, for example
            `{"5": "save", "4": "like"}`. A value that is not listed stands for itself.
        timestamp_unit: of numbers since 1970 (UTC), or `iso` for ISO 8601 text; text without a zone is UTC. A Parquet column of
            type timestamp knows its unit.
        item_ids: `integer`; `string`, which is hashed as in events (schemas.event.hash_item_id), digits too; `auto`: numbers are
            integers, and so is the text of one (`17`, but not `017`), any other text is hashed. Take what the producers send.

    Raises:
        ConfigError: two roles share a column, or an action or surface has neither a column nor a constant.
    """

    user: str = "user_id"
    item: str = "item_id"
    action: str | None = "action"
    surface: str | None = "surface"
    timestamp: str = "timestamp_ms"
    timestamp_unit: TimestampUnit = "ms"
    action_constant: str | None = None
    surface_constant: str | None = None
    action_values: Mapping[str, str] = field(default_factory=dict)
    surface_values: Mapping[str, str] = field(default_factory=dict)
    item_ids: ItemIds = "auto"

    def __post_init__(self) -> None:
        for role, column, constant in (
            ("action", self.action, self.action_constant),
            ("surface", self.surface, self.surface_constant),
        ):
            if column is None and constant is None:
                raise ConfigError(f"the column mapping names neither a column nor a constant for the {role}")
        columns = list(self.columns.values())
        if len(set(columns)) < len(columns):
            raise ConfigError(f"the column mapping uses a column twice: {', '.join(columns)}")

    @property
    def columns(self) -> dict[str, str]:
        """Role -> name of its column, without the roles that are constant."""
        columns = {"user": self.user, "item": self.item, "timestamp": self.timestamp}
        if self.action is not None and self.action_constant is None:
            columns["action"] = self.action
        if self.surface is not None and self.surface_constant is None:
            columns["surface"] = self.surface
        return columns


class Coded(NamedTuple):
    """A column of n values as its distinct values and `(n,)` i32 codes into them."""

    codes: NDArray[np.int32]
    values: list[object]


class BadRow(NamedTuple):
    """A row that cannot be read. `number` counts lines of text files and rows of Parquet files, both from 1."""

    number: int
    column: str | None
    problem: str


class Chunk(NamedTuple):
    """Some rows of a file.

    Attributes:
        numbers: `(n,)` i64, each row's line or row number in the file.
        columns: role -> its column. The timestamp is here or in `times`.
        times: `(n,)` i64, MISSING_TIME where the file has none; or None.
        times_unit: the unit of `times`.
        broken: rows of this part of the file that have no columns at all, such as lines that are no JSON.
    """

    numbers: NDArray[np.int64]
    columns: Mapping[str, Coded]
    times: NDArray[np.int64] | None
    times_unit: TimestampUnit
    broken: list[BadRow]


def coded(values: Sequence[Hashable]) -> Coded:
    """Distinct values and codes of a column. 1, 1.0 and True are different values here."""
    if len(set(map(type, values))) < 2:
        code_of = {value: code for code, value in enumerate(dict.fromkeys(values))}
        return Coded(np.fromiter(map(code_of.__getitem__, values), np.int32, len(values)), list(code_of))
    typed = [(type(value), value) for value in values]
    code_of_typed = {key: code for code, key in enumerate(dict.fromkeys(typed))}
    codes = np.fromiter(map(code_of_typed.__getitem__, typed), np.int32, len(typed))
    return Coded(codes, [value for _, value in code_of_typed])
