"""Instants on the command line: ISO 8601, or so long ago."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

from schemas.errors import ConfigError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def time_ms(option: str, text: str) -> int:
    """Unix ms of an instant, or of so long ago; without a zone it is UTC.

    Raises:
        ConfigError: it is neither; the message names the option.
    """
    if ago := re.fullmatch(r"(\d{1,9})([smhd])", text, re.ASCII):
        return int((time.time() - timedelta(**{_UNITS[ago[2]]: int(ago[1])}).total_seconds()) * 1000)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{option} {text}: neither ISO 8601, such as 2026-01-31T12:34:56Z, nor so long ago: 90s, 15m, 6h, 2d"
        ) from None
    return int((instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp() * 1000)
