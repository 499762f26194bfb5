"""The report: one HTML file with its plots inside, so that it can be mailed or attached."""

from __future__ import annotations

import io
from html import escape
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.errors import PrerequisiteError
from slipstream.demo.view import figure


class LagSample(NamedTuple):
    """The lag of each stage, in messages, some seconds after the replay began."""

    seconds: float
    lag: dict[str, int]


class ReportData(NamedTuple):
    """What the report shows.

    Attributes:
        summary: the object that `--json` prints.
        seconds: `(n,)` when each refresh's oldest event arrived, seconds after the replay began.
        freshness_ms: `(n,)`.
        lags: samples over the replay.
        live_hits, frozen_hits: `(targets,)`, whether each replayed event was among the ten best.
        protocol: how quality was measured, in words.
        marks: what happened when (seconds after the replay began), such as a kill.
    """

    summary: dict[str, Any]
    seconds: NDArray[np.float64]
    freshness_ms: NDArray[np.int64]
    lags: list[LagSample]
    live_hits: NDArray[np.bool_]
    frozen_hits: NDArray[np.bool_]
    protocol: str
    marks: list[tuple[float, str]]


def write_report(path: Path, data: ReportData) -> None:
    """Write the report, replacing an older one.

    Raises:
        PrerequisiteError: matplotlib is not installed.
    """
    plots = _plots(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_PAGE.substitute(plots=plots, summary=_table(data.summary), protocol=escape(data.protocol)))


def _plots(data: ReportData) -> str:
    try:  # it takes a second to import, and only the demo needs it
        import matplotlib
    except ImportError:
        raise PrerequisiteError("the report needs matplotlib: pip install 'slipstream-embeddings[demo]'") from None
    matplotlib.use("svg")
    matplotlib.rcParams |= {
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    draws = (
        ("Freshness over time", _draw_freshness),
        ("Distribution of freshness", _draw_distribution),
        ("Lag of each stage", _draw_lag),
        ("Hits among ten, live against frozen", _draw_quality),
    )
    return "\n".join(f"<figure><figcaption>{title}</figcaption>{_svg(draw, data)}</figure>" for title, draw in draws)


def _svg(draw: Any, data: ReportData) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.subplots()
    draw(axes, data)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return text.getvalue()[text.getvalue().index("<svg") :]


def _draw_freshness(axes: Any, data: ReportData) -> None:
    axes.scatter(data.seconds, data.freshness_ms, s=2, alpha=0.15, linewidths=0, rasterized=True)
    if len(data.seconds):
        bins = np.floor(data.seconds).astype(int)
        middles, p50, p99 = [], [], []
        for second in np.unique(bins):
            within = data.freshness_ms[bins == second]
            middles.append(second + 0.5)
            p50.append(np.percentile(within, 50))
            p99.append(np.percentile(within, 99))
        axes.plot(middles, p50, color="C1", label="p50 of each second")
        axes.plot(middles, p99, color="C3", label="p99 of each second")
        axes.legend(frameon=False)
    _draw_marks(axes, data)
    axes.set(yscale="log", xlabel="seconds after the replay began", ylabel="raw event to readable state, ms")


def _draw_distribution(axes: Any, data: ReportData) -> None:
    if len(data.freshness_ms):
        ordered = np.sort(data.freshness_ms)
        axes.plot(ordered, np.arange(1, len(ordered) + 1) / len(ordered))
        for q in (0.5, 0.9, 0.99):
            axes.axhline(q, color="0.85", zorder=0)
    axes.set(xscale="log", xlabel="raw event to readable state, ms", ylabel="share of refreshes")


def _draw_lag(axes: Any, data: ReportData) -> None:
    seconds = [sample.seconds for sample in data.lags]
    for stage in data.lags[0].lag if data.lags else ():
        axes.plot(seconds, [sample.lag[stage] for sample in data.lags], label=stage)
    if data.lags:
        axes.legend(frameon=False)
    _draw_marks(axes, data)
    axes.set(xlabel="seconds after the replay began", ylabel="messages")


def _draw_quality(axes: Any, data: ReportData, window: int = 1000) -> None:
    kernel = np.ones(min(window, max(1, len(data.live_hits)))) / min(window, max(1, len(data.live_hits)))
    for name, hits in (("live", data.live_hits), ("frozen", data.frozen_hits)):
        if len(hits):
            axes.plot(np.convolve(hits, kernel, "valid"), label=f"{name}: {hits.mean():.4f} over all")
            axes.legend(frameon=False)
    axes.set(xlabel=f"replayed events (mean of the last {len(kernel):,})", ylabel="HR@10", ylim=(0, None))


def _draw_marks(axes: Any, data: ReportData) -> None:
    for seconds, text in data.marks:
        axes.axvline(seconds, color="0.6", linestyle=":")
        axes.annotate(
            text, (seconds, 1), xycoords=("data", "axes fraction"), fontsize=7, rotation=90, va="top", ha="right"
        )


def _table(summary: dict[str, Any]) -> str:
    rows = (f"<tr><th>{escape(name)}</th><td>{escape(figure(value))}</td></tr>" for name, value in summary.items())
    return "<table>" + "".join(rows) + "</table>"


_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Slipstream demo</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
figure { margin: 1.5rem 0 }
figcaption { font-weight: 600 }
svg { max-width: 100%; height: auto }
table { border-collapse: collapse }
th { text-align: left; font-weight: 500; padding-right: 2rem }
td, th { border-bottom: 1px solid #eee }
.note { color: #555 }
</style></head><body>
<h1>Slipstream demo</h1>
<p>Engagement events went through Kafka, Faust, an ONNX encoder and Redis while this was measured. Freshness is from
the moment the raw event reached the broker to the moment its user's state could be read from Redis; a refresh that folds
in several events counts from the oldest.</p>
$plots
<p class="note">$protocol</p>
<h2>Figures</h2>
$summary
</body></html>
""")
