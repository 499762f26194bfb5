"""Pictures of measured results, as SVG: made from the JSON alone, so that they can be drawn again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator

from bench.e2e import FRESH_MS
from bench.scale import STAGES, ScaleBench, series
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


def plot_e2e(result: dict[str, Any], file: Path) -> None:
    """Freshness by load, up to saturation; beside it freshness by the second through a burst."""
    steps, burst = result["details"]["load"], result["details"]["burst"]
    with plt.rc_context(STYLE):
        figure, (load, time) = plt.subplots(1, 2, figsize=(10, 3.6))
        rates = [step["rate"] for step in steps]
        for name in ("p50", "p99"):
            load.plot(rates, [step["ms"][name] for step in steps], marker="o", label=name)
            time.plot([row["s"] for row in burst["seconds"]], [row[name] for row in burst["seconds"]], label=name)
        load.axhline(FRESH_MS, color="grey", linewidth=1, linestyle="--", label=f"{FRESH_MS:.0f} ms")
        load.set_xscale("log")
        load.set_xticks(rates, [f"{rate:,.0f}" for rate in rates], rotation=30)
        load.minorticks_off()
        load.set_xlabel("events per second, each of another user")
        load.set_title("by load")
        slow, fast, _ = burst["rates"]
        time.axvspan(*burst["burst_s"], color="grey", alpha=0.2, label=f"{fast:,.0f} events/s")
        time.set_xlabel("seconds")
        time.set_title(f"through a burst, {slow:,.0f} events/s around it")
        for axis in (load, time):
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:,.0f}")
            axis.set_ylabel("event to readable state, ms")
            axis.legend(frameon=False)
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)


def plot_scale(result: dict[str, Any], file: Path) -> None:
    """What an event costs, by stage: with more users, partitions and workers. Beside it what workers get through."""
    config, points = ScaleBench(**result["config"]), result["details"]["points"]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 4, figsize=(14, 3.4))
        for axis, what in zip(axes, ("users", "partitions", "workers"), strict=False):
            found = list(series(points, what, config))
            at = [point[what] for point in found]
            for stage in STAGES:
                axis.plot(at, [point["cpu_us_per_event"][stage] for point in found], marker="o", label=stage)
            gone = [point for point in found if point["backlog"]]
            cost = [sum(point["backlog"]["cpu_us_per_event"].values()) for point in gone]
            axis.plot([point[what] for point in gone], cost, "k--", marker=".", label="all, of a backlog")
            axis.set_xscale("log")
            axis.set_xticks(at, [f"{number:,}" for number in at])
            axis.minorticks_off()
            axis.set_ylim(bottom=0)
            axis.set_xlabel({"workers": "workers of each stage"}.get(what, what))
            axis.set_ylabel(f"CPU µs per event, {config.rate:,.0f} events/s")
            axis.legend(frameon=False)
        rates = [point["backlog"]["events_per_s"] for point in gone]  # of the last series, by workers
        drawn = axes[3].bar([str(point["workers"]) for point in gone], rates)
        axes[3].bar_label(drawn, fmt="{:,.0f}", fontsize=8)
        axes[3].set_xlabel("workers of each stage")
        axes[3].set_ylabel("events per second, of a backlog")
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)


def plot_soak(result: dict[str, Any], file: Path) -> None:
    """Over the minutes of a soak: memory, descriptors, lag and freshness; faults are grey."""
    series = result["details"]["series"]
    ours = {name: of for name, of in series["processes"].items() if name != "kafka"}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(4, 1, figsize=(9, 9), sharex=True)
        memory, descriptors, lag, freshness = axes
        for name, of in ours.items():
            minutes = [s / 60 for s in of["s"]]
            memory.plot(minutes, of["rss_mb"], label=name)
            descriptors.plot(minutes, of["fds"], label=name)
        for stage, waiting in series["lag"]["messages"].items():
            lag.plot([s / 60 for s in series["lag"]["s"]], waiting, label=stage, linewidth=1)
        rows = series["freshness_ms"]
        for name in ("p50", "p99"):
            freshness.plot([row["s"] / 60 for row in rows], [row[name] for row in rows], label=name)
        for axis, what in zip(axes, ("RSS, MB", "file descriptors", "lag, messages", "freshness, ms"), strict=True):
            for fault in series["faults"]:
                axis.axvspan(fault["s"] / 60, fault["until_s"] / 60, color="grey", alpha=0.25, linewidth=1)
            axis.set_ylabel(what)
            axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        memory.set_ylim(bottom=0)
        descriptors.set_ylim(bottom=0)
        lag.set_yscale("symlog", linthresh=10)
        lag.set_ylim(bottom=0)
        freshness.set_yscale("log")
        freshness.yaxis.set_major_formatter("{x:,.0f}")
        freshness.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        freshness.yaxis.set_minor_formatter("")
        freshness.set_xlabel("minutes")
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)
