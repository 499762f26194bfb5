"""What an evaluation comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """
    Attributes:
        figures: name -> number.
        details: what stands behind them.
    """

    figures: dict[str, float | int | None]
    details: dict[str, Any]
