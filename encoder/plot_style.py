"""How our pictures look. matplotlib is not imported here: `matplotlib.rc_context(STYLE)` is for whoever draws."""

from __future__ import annotations

from typing import Any

STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "svg.hashsalt": "slipstream",  # the same data give the same bytes
    "figure.constrained_layout.use": True,
}
