"""What a training is told, from a TOML file and flags: every field of encoder.train_config.TrainConfig, and no other key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec

from encoder.tables import rows_for
from encoder.train_config import TrainConfig
from schemas.bundle import PRESETS, ModelShape
from schemas.errors import BundleError, ConfigError
from slipstream.given import as_config, given

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
    values = given(file, flags, assignments, {"": _KEYS, "shape": _SHAPE}, defaults)
    where = str(file) if file else "the training's settings"
    shape = _shape(values.pop("preset", "nano"), values.pop("shape", {}), items, where)
    return as_config({**values, "shape": shape, "source": source}, TrainConfig, where)


def _shape(preset: Any, sizes: Mapping[str, Any], items: int, where: str) -> ModelShape:
    if preset not in PRESETS:
        raise ConfigError(f"{where}: preset {preset!r}: choose one of {', '.join(PRESETS)}")
    given = {**msgspec.structs.asdict(PRESETS[preset]), "rows": rows_for(items), **sizes}
    try:
        return msgspec.convert(given, ModelShape)
    except (msgspec.ValidationError, BundleError) as error:
        raise ConfigError(f"{where}: shape: {error}") from None
