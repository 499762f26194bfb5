"""What a person sees while events stream in: one table, redrawn twice a second, on stderr."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table


@dataclass(frozen=True)
class Glance:
    """One moment of the pipeline. Lags are messages not yet worked off, by stage; freshness in ms over the latest refreshes."""

    sent: int
    events_per_s: float
    lag: dict[str, int]
    freshness_ms: dict[str, float]
    dead_letters: int
    refreshes: int
    kinds: dict[str, int] = field(default_factory=dict)


class ReplayView:
    """Shows glances while the context lasts. Without a terminal it prints one line every few seconds instead."""

    def __init__(self, console: Console, total: int, every_s: float = 5) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("replay"),
            BarColumn(),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("replay", total=total)
        self._live = Live(self._progress, console=console, refresh_per_second=4) if console.is_terminal else None
        self._every_s = every_s
        self._printed_at = float("-inf")

    def __enter__(self) -> ReplayView:
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, glance: Glance, now_s: float) -> None:
        self._progress.update(self._task, completed=glance.sent)
        if self._live:
            self._live.update(Group(self._progress, _table(glance)))
        elif now_s - self._printed_at >= self._every_s:
            self._printed_at = now_s
            self._console.print(_line(glance), highlight=False)


def _table(glance: Glance) -> Table:
    table = Table(show_header=True, header_style="bold", expand=False)
    for name in (
        "events/s",
        *(f"lag {stage}" for stage in glance.lag),
        "freshness p50",
        "p99",
        "dead letters",
        "refreshes",
    ):
        table.add_column(name, justify="right")
    table.add_row(
        f"{glance.events_per_s:,.0f}",
        *(f"{lag:,}" for lag in glance.lag.values()),
        _ms(glance.freshness_ms.get("p50")),
        _ms(glance.freshness_ms.get("p99")),
        f"{glance.dead_letters:,}",
        f"{glance.refreshes:,}",
    )
    return table


def _line(glance: Glance) -> str:
    lags = " ".join(f"{stage} {lag}" for stage, lag in glance.lag.items())
    return (
        f"  {glance.sent:>7,} sent, {glance.events_per_s:,.0f} events/s; lag: {lags}; freshness p50 "
        f"{_ms(glance.freshness_ms.get('p50'))}, p99 {_ms(glance.freshness_ms.get('p99'))}; dead letters {glance.dead_letters}"
    )


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} ms"


def figure(value: Any) -> str:
    """A figure of the summary for people; an object's parts with their names."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {figure(part)}" for name, part in value.items())
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
