"""The same moment for a terminal."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from slipstream.cli.letters_view import printable
from slipstream.watch.figures import Snapshot

LETTERS_SHOWN = 8


def render(snapshot: Snapshot) -> RenderableType:
    """Everything on one screen."""
    parts: list[RenderableType] = [_head(snapshot), _stages(snapshot)]
    if snapshot.letters.newest:
        parts.append(_letters(snapshot))
    return Group(*parts)


def line(snapshot: Snapshot) -> str:
    """One line, for a log."""
    lags = " ".join(f"{stage.name} {_count(stage.lag)}" for stage in snapshot.stages)
    away = "".join(f"; {name}: {why}" for name, why in _away(snapshot))
    return (
        f"{_time(snapshot.now_ms)} {_rate(snapshot.arriving_per_s)} messages/s; lag: {lags}; freshness {_freshness(snapshot)}; "
        f"dead letters {_count(snapshot.letters.total)}{away}"
    )


def _head(snapshot: Snapshot) -> Text:
    text = Text()
    text.append(f"{snapshot.prefix}  ", "bold").append(
        f"model {snapshot.model.active or 'none'}  {_time(snapshot.now_ms)}\n"
    )
    text.append("freshness ", "bold").append(_freshness(snapshot) + "\n")
    for name, why in _away(snapshot):
        text.append(f"{name}: {printable(why.encode(errors='replace'), 300)}\n", "bold red")
    return text


def _away(snapshot: Snapshot) -> list[tuple[str, str]]:
    sources = (("Kafka", snapshot.kafka), ("Redis", snapshot.redis))
    return [(name, source.said) for name, source in sources if not source.ok]


def _freshness(snapshot: Snapshot) -> str:
    found = snapshot.freshness
    said = f"p50 {_ms(found.p50_ms)}, p99 {_ms(found.p99_ms)} ({found.measured:,} states in {found.window_s} s)"
    return (
        said
        if found.waiting_ms is None
        else f"{said}, not readable yet: {found.waiting:,}, the oldest for {_ms(found.waiting_ms)}"
    )


def _stages(snapshot: Snapshot) -> Table:
    table = Table("stage", title_justify="left")
    for name in ("lag", "a second"):
        table.add_column(name, justify="right")
    table.add_column("of")
    table.add_row("(arriving)", "", _rate(snapshot.arriving_per_s), "messages")
    for stage in snapshot.stages:
        table.add_row(stage.name, _count(stage.lag), _rate(stage.per_s), stage.unit)
    return table


def _letters(snapshot: Snapshot) -> Table:
    letters = snapshot.letters
    title = f"dead letters: {_count(letters.total)}, {letters.new:,} since the watch began"
    table = Table("place", "buried", "reason", "from", "error", title=title, title_justify="left")
    for letter in letters.newest[:LETTERS_SHOWN]:
        cells = (letter.place, _time(letter.buried_ms), letter.reason, letter.source, letter.error)
        table.add_row(*(Text(printable(cell.encode(errors="replace"), 160)) for cell in cells))
    return table


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%H:%M:%S}Z"


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f} ms" if value < 10_000 else f"{value / 1000:,.0f} s"


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
