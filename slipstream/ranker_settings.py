"""What a ranker's training is told, from a TOML file and flags: every field of ranker.head.config.RankerConfig, and no other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ranker.head.config import RankerConfig
from slipstream.given import as_config, given

_KEYS = tuple(field.name for field in fields(RankerConfig))


def ranker_config(file: Path | None, flags: Mapping[str, Any], assignments: Iterable[str]) -> RankerConfig:
    """Flags go before assignments, those before the file, and that before the defaults.

    Raises:
        ConfigError: the file cannot be read, an unknown key, or a value of the wrong kind or out of range.
    """
    values = given(file, flags, assignments, {"": _KEYS})
    return as_config(values, RankerConfig, str(file) if file else "the ranker's settings")
