"""Options of every command that reads an event log: its columns and what they mean."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from schemas.errors import ConfigError
from slipstream.cli.context import Context
from stream.columns import ColumnMapping
from stream.logs import LoadedLog, LogOptions, load_log

Log = Annotated[str, typer.Argument(metavar="LOG", help="ml-100k, ml-1m, or a .csv, .tsv, .jsonl or .parquet file")]
User = Annotated[str, typer.Option(help="Column of the user", rich_help_panel="Columns of the log")]
Item = Annotated[str, typer.Option(help="Column of the item")]
Action = Annotated[str, typer.Option(help="Column of the action, or =NAME for the same one everywhere")]
Surface = Annotated[str, typer.Option(help="Column of the surface, or =NAME for the same one everywhere")]
Timestamp = Annotated[str, typer.Option(help="Column of the time")]
TimestampUnit = Annotated[
    Literal["s", "ms", "us", "ns", "iso"], typer.Option(help="Unit of the time since 1970, or ISO 8601")
]
ActionValue = Annotated[
    list[str] | None,
    typer.Option(metavar="VALUE=NAME", help="What the log calls an action, for example 5=save; repeatable"),
]
ItemIds = Annotated[
    Literal["auto", "integer", "string"], typer.Option(help="How item ids are read; strings are hashed")
]
SkipBadRows = Annotated[
    bool, typer.Option("--skip-bad-rows", help="Leave bad rows out and count them, instead of ending")
]


def load(
    ctx: Context,
    source: str,
    user: str,
    item: str,
    action: str,
    surface: str,
    timestamp: str,
    timestamp_unit: Literal["s", "ms", "us", "ns", "iso"],
    action_value: list[str] | None,
    item_ids: Literal["auto", "integer", "string"],
    skip_bad_rows: bool,
) -> LoadedLog:
    """Read a log as a command's options say, and say on stderr what was left out."""
    columns = ColumnMapping(
        user=user,
        item=item,
        timestamp=timestamp,
        timestamp_unit=timestamp_unit,
        action=None if action.startswith("=") else action,
        surface=None if surface.startswith("=") else surface,
        action_constant=action[1:] if action.startswith("=") else None,
        surface_constant=surface[1:] if surface.startswith("=") else None,
        action_values=dict(_pair(text) for text in action_value or ()),
        item_ids=item_ids,
    )
    settings = ctx.settings
    options = LogOptions(on_bad_rows="skip" if skip_bad_rows else "raise", unknown_names=settings.unknown_names)
    loaded = load_log(source, settings.vocabulary, columns, options)
    if loaded.skipped:
        ctx.say(f"{loaded.skipped:,} bad rows left out, for example:")
        for example in loaded.examples:
            ctx.say(f"  {example}")
    return loaded


def _pair(text: str) -> tuple[str, str]:
    value, equals, name = text.rpartition("=")
    if not equals or not value or not name:
        raise ConfigError(f"--action-value {text!r}: write VALUE=NAME, for example 5=save")
    return value, name
