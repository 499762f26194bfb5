"""How a frozen configuration says which of its fields are out of range: all of them at once."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.errors import ConfigError


def require_in_range(config: object, limits: Mapping[str, bool]) -> None:
    """
    Args:
        limits: fields of `config`, and whether their values are good.

    Raises:
        ConfigError: some are not.
    """
    wrong = [name for name, good in limits.items() if not good]
    if wrong:
        raise ConfigError("; ".join(f"{name}: {getattr(config, name)} is out of range" for name in wrong))
