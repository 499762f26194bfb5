"""The freshness curve as a picture (SVG), from the JSON of `slipstream evaluate` alone, so that it can be drawn again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

import matplotlib.pyplot as plt
import numpy as np

from encoder.evaluation.freshness import FROZEN, series
from encoder.plot_style import STYLE

_NAMES = {"all": "all users", "warm": "warm users", "new_users": "new users"}
_TICKS = {
    "events": {0: "0", 1: "1", 2: "2", 5: "5", 10: "10", 20: "20", 50: "50"},
    "seconds": {0: "0", 1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3600: "1 h", 21_600: "6 h", 86_400: "1 d"},
}
_AXES = {"events": "events that the state is behind", "seconds": "time that the state is behind"}
_FROZEN_AT = float(np.log1p(86_400 * 12))


def plot_freshness(
    curve: Mapping[str, Any], file: Path, title: str, counts_hr10: float, marks: Sequence[Mapping[str, float]] = ()
) -> None:
    """HR@10 by how many events, and by how long, a state is behind; bands are 95% intervals over users.

    Args:
        curve: encoder.evaluation.freshness.curve.
        title: what was measured on what.
        counts_hr10: of item-to-item counts that have seen everything, all users.
        marks: where a pipeline works: `freshness_ms`, `hr10`.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
        for axis, (unit, label) in zip(axes, _AXES.items(), strict=True):
            for number, (kind, line) in enumerate(curve.items()):
                _line(axis, line, unit, f"C{number}", _NAMES.get(kind, kind))
            axis.axhline(curve["all"]["popularity_hr10"], color="0.5", linestyle=":", label="popularity")
            axis.axhline(counts_hr10, color="0.5", linestyle="--", label="item-to-item counts, nothing behind")
            axis.set_ylim(bottom=0)
            axis.set_xlabel(label)
            ticks = {np.log1p(x): name for x, name in _TICKS[unit].items()}
            if unit == "seconds" and any(point["at"] == FROZEN for point in curve["all"]["points"]):
                ticks[_FROZEN_AT] = "frozen"
            axis.set_xticks(list(ticks), list(ticks.values()))
        axes[0].set_ylabel("HR@10 of the next event, all items ranked")
        for mark in marks:
            ms = mark["freshness_ms"]
            axes[1].axvline(np.log1p(ms / 1000), color="C3", linewidth=1, label=f"measured freshness, {ms:g} ms")
        handles, labels = axes[1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
        figure.suptitle(title, fontsize=10)
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)


def _line(axis: Any, line: Mapping[str, Any], unit: str, colour: str, name: str) -> None:
    behind, hr = series(line, unit)
    xs = np.log1p(behind)
    axis.plot(xs, hr, marker="o", color=colour, markersize=3, label=name)
    low, high = series(line, unit, "hr10_low")[1], series(line, unit, "hr10_high")[1]
    axis.fill_between(xs, low, high, color=colour, alpha=0.15, linewidth=0)
    frozen = next((point for point in line["points"] if point["at"] == FROZEN), None)
    if unit == "seconds" and frozen is not None:
        error = [[frozen["hr10"] - frozen["hr10_low"]], [frozen["hr10_high"] - frozen["hr10"]]]
        axis.errorbar(_FROZEN_AT, frozen["hr10"], yerr=error, marker="s", color=colour, markersize=4)
