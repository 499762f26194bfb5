"""What an evaluation comes to."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
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


def over_seeds(name: str, values: Sequence[float]) -> dict[str, float]:
    """A figure's mean over seeds, one at least; of more than one their standard deviation too, `<name>_spread`."""
    spread = {f"{name}_spread": statistics.stdev(values)} if len(values) > 1 else {}
    return {name: statistics.fmean(values), **spread}
