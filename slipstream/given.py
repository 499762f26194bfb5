"""What a command is told by a TOML file, `--set NAME=VALUE` and flags: keys that are known, and no other."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from schemas.errors import ConfigError

#: Known keys by the table that they stand in; "" is the top.
Keys = Mapping[str, tuple[str, ...]]
#: For fields that may be left out: TOML has no null.
NONE = "none"

_T = TypeVar("_T")


def given(
    file: Path | None,
    flags: Mapping[str, Any],
    assignments: Iterable[str],
    keys: Keys,
    defaults: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Flags go before assignments, those before the file, and that before the defaults.

    Args:
        flags: by the same names; None: not given.
        assignments: `name=value` as in the file, `table.name=value` for a table's.

    Returns:
        Values by name; those of a table in a dict of its own.

    Raises:
        ConfigError: the file cannot be read, or an unknown key.
    """
    values = {**(defaults or {}), **(_read(file, keys) if file else {})}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text!r}: write NAME=VALUE, for example learning_rate=0.003")
        _assign(values, name.strip(), _value(value.strip()), keys, f"--set {text!r}")
    for name, value in flags.items():
        if value is not None:
            _assign(values, name, value, keys, f"--{name.replace('_', '-')}")
    return values


def as_config(values: Mapping[str, Any], kind: type[_T], where: str) -> _T:
    """Values as a configuration, a frozen dataclass; `max_steps` alone means no limit of time.

    Raises:
        ConfigError: a value of the wrong kind or out of range.
    """
    optional = {field.name for field in fields(kind) if "None" in str(field.type)}  # type: ignore[arg-type]
    chosen = {name: None if name in optional and value == NONE else value for name, value in values.items()}
    if "max_steps" in values:
        chosen.setdefault("max_seconds", None)
    try:
        return msgspec.convert(chosen, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from None


def _read(file: Path, keys: Keys) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: no TOML: {error}") from None
    checked: dict[str, Any] = {}
    for name, value in values.items():
        for key, each in value.items() if name in keys and isinstance(value, dict) else [("", value)]:
            _assign(checked, f"{name}.{key}" if key else name, each, keys, str(file))
    return checked


def _assign(values: dict[str, Any], name: str, value: Any, keys: Keys, where: str) -> None:
    table, dot, key = name.rpartition(".")
    known = keys.get(table, keys[""])
    if table not in keys or key not in known or name in keys:
        near = difflib.get_close_matches(key, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise ConfigError(f"{where}: unknown key {name!r}: {hint}")
    (values.setdefault(table, {}) if dot else values)[key] = value


def _value(text: str) -> Any:
    """As TOML has it; what it has not, such as a bare word, is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
