"""Dead letters as a person or a program sees them. Anybody may have written what they hold: it reaches a terminal escaped."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from slipstream.cli.context import Context
from stream.letters import DeadLetter
from stream.letters_replay import ReplayReport
from stream.letters_report import Report

PREVIEW_CHARS = 2000


def _shown_time(ms: int) -> str:
    try:
        return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}Z"
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"


def printable(data: bytes | None, most_chars: int = PREVIEW_CHARS) -> str:
    """Text that is safe on a terminal: what cannot be printed, or is not UTF-8, is escaped; a long text is cut."""
    if data is None:
        return "(none)"
    text = data[: 4 * most_chars].decode(errors="backslashreplace")
    shown = _escaped(text[:most_chars])
    return f"{shown} … ({len(data):,} bytes)" if len(text) > most_chars or len(data) > 4 * most_chars else shown


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _source(letter: DeadLetter) -> str:
    if letter.said is None:
        return ""
    topic, partition, offset, _ = letter.said.provenance
    return _escaped(f"{topic}[{partition}]@{offset}")


def summary(letter: DeadLetter) -> dict[str, Any]:
    found: dict[str, Any] = {"place": str(letter.place), "reason": letter.reason, "buried_ms": letter.buried_ms}
    if letter.said is not None:
        topic, partition, offset, timestamp_ms = letter.said.provenance
        source = {"topic": topic, "partition": partition, "offset": offset, "timestamp_ms": timestamp_ms}
        found |= {"source": source, "replays": letter.said.replays, "error": letter.said.error}
    return found


def print_report(ctx: Context, report: Report) -> None:
    if not report.letters:
        ctx.say("no dead letters")
        return
    counts = Table("reason", "from topic", "letters", "replayed since", "repeated", "oldest", "newest")
    for (reason, topic), count in sorted(report.counts.items(), key=lambda item: -item[1].letters):
        numbers = [f"{n:,}" for n in (count.letters, count.replayed, count.repeated)]
        counts.add_row(
            *map(Text, (_escaped(reason), _escaped(topic), *numbers)),
            _shown_time(count.first_ms),
            _shown_time(count.last_ms),
        )
    ctx.console.print(counts)
    if report.newest:
        table = Table("place", "buried", "reason", "from", "replays", "error", title="newest", title_justify="left")
        for letter in report.newest:
            said = letter.said
            row = (
                str(letter.place),
                _shown_time(letter.buried_ms),
                _escaped(letter.reason),
                _source(letter),
                str(said.replays if said else ""),
                printable(said.error.encode(), 160) if said else "",
            )
            table.add_row(*map(Text, row))
        ctx.console.print(table)


def print_letter(ctx: Context, letter: DeadLetter) -> None:
    said = letter.said
    rows = [
        ("place", str(letter.place)),
        ("buried", _shown_time(letter.buried_ms)),
        ("reason", _escaped(letter.reason)),
    ]
    if said is not None:
        rows += [
            ("error", printable(said.error.encode(errors="replace"))),
            ("from", f"{_source(letter)}, {_shown_time(said.provenance.timestamp_ms)}"),
            ("replays", str(said.replays)),
        ]
    rows.append(("key", printable(letter.key)))
    for name, value in said.original if said else letter.headers:
        rows.append(
            ("header", f"{_escaped(name)}: {printable(value if isinstance(value, bytes | None) else value.encode())}")
        )
    rows.append(("value", f"{len(letter.value or b''):,} bytes"))
    for name, text in rows:
        ctx.say(f"{name:<8} {text}")
    ctx.say(printable(letter.value))


def print_replay(ctx: Context, report: ReplayReport, dry_run: bool) -> None:
    for (reason, topic), n in report.sent.items():
        ctx.say(f"{'would send' if dry_run else 'sent'} {n:,} {_escaped(reason)} to {topic}")
    if not report.sent.total():
        ctx.say("nothing to send")
    if report.passed:
        ctx.say(f"{report.passed:,} were replayed before (--again sends them again)")
    for why, n in report.unfit.items():
        ctx.say(f"{n:,} cannot be replayed: {_escaped(why)}")
    for place, why in report.refused:
        ctx.say(f"letter {place} was refused: {_escaped(why)}")
