"""The setting `log_columns`: how log files name their columns, for each command that reads one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from stream.columns import ColumnMapping, ItemIds, TimestampUnit

#: What the setting may say, as the commands' options of the same names; None: any text.
_ALLOWED: Mapping[str, tuple[str, ...] | None] = {
    **dict.fromkeys(("user", "item", "action", "surface", "timestamp")),
    "timestamp_unit": get_args(TimestampUnit),
    "item_ids": get_args(ItemIds),
}


def checked_columns(columns: dict[str, str]) -> dict[str, str]:
    """
    Raises:
        ValueError: an unknown key or value; settings name the place.
    """
    for name, value in columns.items():
        if name not in _ALLOWED:
            raise ValueError(f"no {name!r} here: there are {', '.join(_ALLOWED)}")
        allowed = _ALLOWED[name]
        if allowed is not None and value not in allowed:
            raise ValueError(f"{name} {value!r}: choose from {', '.join(allowed)}")
    return columns


def column_mapping(
    columns: Mapping[str, str], options: Mapping[str, str | None], action_values: Mapping[str, str]
) -> ColumnMapping:
    """What the setting says, unless an option does, unless neither does: then ColumnMapping's default.

    Args:
        columns: the setting.
        options: by the same names; None: not given.

    Raises:
        ConfigError: as ColumnMapping.
    """
    said: dict[str, Any] = {**columns, **{name: value for name, value in options.items() if value is not None}}
    for role in ("action", "surface"):
        if said.get(role, "").startswith("="):
            said[f"{role}_constant"], said[role] = said[role][1:], None
    return ColumnMapping(**said, action_values=action_values)
