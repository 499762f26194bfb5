"""Pictures of measured results, as SVG: made from the JSON alone, so that they can be drawn again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

import matplotlib.pyplot as plt

from encoder.plot_style import STYLE


def plot_stream(result: dict[str, Any], file: Path) -> None:
    """How the cost of an event grows with sequence length, users and partitions; beside it the contenders."""
    growth = result["details"].get("growth")
    path = result["details"]["path"]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 4 if growth else 1, figsize=(14 if growth else 4.5, 3.4), squeeze=False)
        bars = axes[0][0]
        names = list(path["uniform"])
        for offset, (spread, costs) in enumerate(path.items()):
            rates = [costs[name]["events_per_cpu_s"] / 1000 for name in names]
            drawn = bars.bar([i + 0.4 * offset for i in range(len(names))], rates, 0.38, label=spread)
            bars.bar_label(drawn, fmt="%.0f", fontsize=8)
        bars.set_xticks([i + 0.2 for i in range(len(names))], [name.replace("_", " ") for name in names])
        bars.set_ylabel("thousand events per CPU-second")
        bars.set_title("raw JSON to changelog, 256 events a user")
        bars.legend(frameon=False)
        for axis, (what, points) in zip(axes[0][1:], (growth or {}).items(), strict=False):
            for part in ("sequence", "ingest"):
                axis.plot(
                    [point[what] for point in points],
                    [point["cpu_s"][part] / point["events"] * 1e6 for point in points],
                    marker="o",
                    label=part,
                )
            axis.set_xscale("log")
            axis.set_xticks([point[what] for point in points], [f"{point[what]:,}" for point in points])
            axis.minorticks_off()
            axis.set_ylim(bottom=0)
            axis.set_xlabel({"length": "events of a sequence"}.get(what, what))
            axis.set_ylabel("CPU µs per event")
            axis.legend(frameon=False)
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)
