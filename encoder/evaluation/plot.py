"""The freshness curve as a picture (SVG), from the JSON of `slipstream evaluate` alone, so that it can be drawn again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

import matplotlib.pyplot as plt

from encoder.evaluation.freshness import FROZEN, series

_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "svg.hashsalt": "slipstream",
    "figure.constrained_layout.use": True,
}
_NAMES = {"all": "all users", "warm": "warm users", "new_users": "new users"}
_TICKS = {0: "0", 1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3600: "1 h", 21_600: "6 h", 86_400: "1 d"}


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
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), sharey=True)
        for axis, unit in zip(axes, ("events", "seconds"), strict=True):
            for number, (kind, line) in enumerate(curve.items()):
                _line(axis, line, unit, f"C{number}", _NAMES.get(kind, kind))
            axis.axhline(curve["all"]["popularity_hr10"], color="0.5", linestyle=":", label="popularity")
            axis.axhline(counts_hr10, color="0.5", linestyle="--", label="item-to-item counts, nothing behind")
            axis.set_xscale("symlog", linthresh=1)
            axis.set_ylim(bottom=0)
        axes[0].set_xlabel("events that the state is behind")
        axes[0].set_ylabel("HR@10 of the next event, all items ranked")
        behind = [int(x) for x in series(curve["all"], "events")[0]]
        axes[0].set_xticks(behind, [str(x) for x in behind])
        axes[1].set_xlabel("time that the state is behind (frozen: since T)")
        ticks = [x for x in series(curve["all"], "seconds")[0] if x in _TICKS]
        axes[1].set_xticks(ticks, [_TICKS[int(x)] for x in ticks])
        for axis in axes:
            axis.minorticks_off()
        for mark in marks:
            seconds = mark["freshness_ms"] / 1000
            axes[1].axvline(seconds, color="C3", linewidth=1, label=f"measured freshness, {mark['freshness_ms']:g} ms")
        axes[1].legend(frameon=False, fontsize=8)
        figure.suptitle(title, fontsize=10)
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)


def _line(axis: Any, line: Mapping[str, Any], unit: str, colour: str, name: str) -> None:
    points = {point["at"]: point for point in line["points"]}
    xs, ys = series(dict(line), unit)
    used = [points["events_0" if x == 0 else f"{unit}_{x:g}"] for x in xs]
    axis.plot(xs, ys, marker="o", color=colour, markersize=3, label=name)
    axis.fill_between(
        xs, [p["hr10_low"] for p in used], [p["hr10_high"] for p in used], color=colour, alpha=0.15, linewidth=0
    )
    if unit == "seconds" and FROZEN in points:
        frozen = points[FROZEN]
        error = [[frozen["hr10"] - frozen["hr10_low"]], [frozen["hr10_high"] - frozen["hr10"]]]
        axis.errorbar(4 * max(xs), frozen["hr10"], yerr=error, marker="s", color=colour, markersize=4)
