"""What a training is told, from a TOML file and flags: every field of encoder.train_config.TrainConfig, and no other key."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec

from encoder.tables import rows_for
from encoder.train_config import TrainConfig
from schemas.bundle import PRESETS, ModelShape
from schemas.errors import BundleError, ConfigError

#: For fields that may be left out: TOML has no null.
NONE = "none"
_OPTIONAL = tuple(field.name for field in fields(TrainConfig) if "None" in str(field.type))
_FIELDS = tuple(field.name for field in fields(TrainConfig) if field.name not in ("shape", "source"))
_SHAPE = ModelShape.__struct_fields__
_KEYS = ("preset", "shape", *_FIELDS)


def train_config(
    file: Path | None,
    flags: Mapping[str, Any],
    assignments: Iterable[str],
    *,
    items: int,
    source: str,
    defaults: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """Flags go before assignments, those before the file, and that before the defaults.

    Args:
        file: TOML: fields of TrainConfig, `preset`, and a table `shape` with sizes that differ from the preset's.
        flags: by the same names; None: not given.
        assignments: `name=value` as in the file, `shape.rows=4096` for sizes.
        defaults: in place of TrainConfig's own.
        items: of the log; without `shape.rows` the tables are as long as that needs.

    Raises:
        ConfigError: the file cannot be read, an unknown key, or a value of the wrong kind or out of range.
    """
    values = {**(defaults or {}), **(_read(file) if file else {})}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text!r}: write NAME=VALUE, for example learning_rate=0.003")
        _assign(values, name.strip(), _value(value.strip()), f"--set {text!r}")
    for name, value in flags.items():
        if value is not None:
            _assign(values, name, value, f"--{name.replace('_', '-')}")
    where = str(file) if file else "the training's settings"
    shape = _shape(values.pop("preset", "nano"), values.pop("shape", {}), items, where)
    if "max_steps" in values and "max_seconds" not in values:
        values["max_seconds"] = None
    for name in _OPTIONAL:
        if values.get(name) == NONE:
            values[name] = None
    try:
        return msgspec.convert({**values, "shape": shape, "source": source}, TrainConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from None


def _read(file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: no TOML: {error}") from None
    checked: dict[str, Any] = {}
    for name, value in values.items():
        for key, each in value.items() if name == "shape" and isinstance(value, dict) else [("", value)]:
            _assign(checked, f"{name}.{key}" if key else name, each, str(file))
    return checked


def _assign(values: dict[str, Any], name: str, value: Any, where: str) -> None:
    table, dot, key = name.rpartition(".")
    known = _SHAPE if table == "shape" else _KEYS
    if (dot and table != "shape") or key not in known or name == "shape":
        near = difflib.get_close_matches(key, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise ConfigError(f"{where}: unknown key {name!r}: {hint}")
    (values.setdefault("shape", {}) if dot else values)[key] = value


def _value(text: str) -> Any:
    """As TOML has it; what it has not, such as a bare word, is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _shape(preset: Any, sizes: Mapping[str, Any], items: int, where: str) -> ModelShape:
    if preset not in PRESETS:
        raise ConfigError(f"{where}: preset {preset!r}: choose one of {', '.join(PRESETS)}")
    given = {**msgspec.structs.asdict(PRESETS[preset]), "rows": rows_for(items), **sizes}
    try:
        return msgspec.convert(given, ModelShape)
    except (msgspec.ValidationError, BundleError) as error:
        raise ConfigError(f"{where}: shape: {error}") from None
