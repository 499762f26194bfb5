"""The argument and options of every command that reads an event log: where it is, its columns and what they mean."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from schemas.errors import ConfigError
from schemas.log import EventLog
from slipstream.cli.context import Context, context
from slipstream.cli.stages import kafka, schema_registry
from slipstream.log_columns import column_mapping
from stream.columns import ColumnMapping, ItemIds, TimestampUnit
from stream.logs import LoadedLog, LogOptions, load_log
from stream.movielens import FILES
from stream.ties import spread_ties
from stream.topic_log import PREFIX, read_topic

LoadLog = Callable[[], LoadedLog]
"""Reads the log as the command's options say, and says on stderr what was left out."""


@dataclass(frozen=True)
class LogArguments:
    """What the log's argument and options say."""

    ctx: Context
    source: str
    columns: ColumnMapping
    options: LogOptions

    def load(self) -> LoadedLog:
        settings = self.ctx.settings
        if self.source.startswith(PREFIX):
            topic = self.source.removeprefix(PREFIX) or settings.names.engagements
            loaded = read_topic(kafka(self.ctx), topic, settings.parser, schema_registry(self.ctx))
        else:
            loaded = load_log(self.source, settings.vocabulary, self.columns, self.options)
        self.say_skipped(loaded.skipped, loaded.examples)
        return loaded

    def say_skipped(self, skipped: int, examples: Iterable[str]) -> None:
        if skipped:
            self.ctx.say(f"{skipped:,} bad rows left out, for example:")
            for example in examples:
                self.ctx.say(f"  {example}")


def _arguments(
    ctx: Context,
    log: Annotated[
        str, typer.Argument(metavar="LOG", help="ml-100k, ml-1m, a .csv, .tsv, .jsonl or .parquet file, or kafka:TOPIC")
    ],
    user: Annotated[str | None, typer.Option(help="Column of the user [default: user_id]")] = None,
    item: Annotated[str | None, typer.Option(help="Column of the item [default: item_id]")] = None,
    action: Annotated[
        str | None, typer.Option(help="Column of the action, or =NAME for the same one everywhere [default: action]")
    ] = None,
    surface: Annotated[
        str | None, typer.Option(help="Column of the surface, or =NAME for the same one everywhere [default: surface]")
    ] = None,
    timestamp: Annotated[str | None, typer.Option(help="Column of the time [default: timestamp_ms]")] = None,
    timestamp_unit: Annotated[
        TimestampUnit | None, typer.Option(help="Unit of the time since 1970, or ISO 8601 [default: ms]")
    ] = None,
    action_value: Annotated[
        list[str] | None,
        typer.Option(metavar="VALUE=NAME", help="What the log calls an action, for example 5=save; repeatable"),
    ] = None,
    item_ids: Annotated[
        ItemIds | None, typer.Option(help="How item ids are read; strings are hashed [default: auto]")
    ] = None,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Leave bad rows out and count them, instead of ending")
    ] = False,
) -> LogArguments:
    said = {
        "user": user,
        "item": item,
        "action": action,
        "surface": surface,
        "timestamp": timestamp,
        "timestamp_unit": timestamp_unit,
        "item_ids": item_ids,
    }
    columns = column_mapping(ctx.settings.log_columns, said, dict(_pair(text) for text in action_value or ()))
    options = LogOptions(on_bad_rows="skip" if skip_bad_rows else "raise", unknown_names=ctx.settings.unknown_names)
    return LogArguments(ctx, log, columns, options)


#: What `reads_log` gives a command that names it.
_GIVEN = ("load_log", "log_arguments", "log")


def reads_log(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the log's argument and options; it gets those that it names of `load_log: LoadLog`,
    `log_arguments: LogArguments` and `log: str`."""
    ours = inspect.signature(_arguments, eval_str=True).parameters
    theirs = inspect.signature(command, eval_str=True).parameters
    own = [parameter for name, parameter in theirs.items() if name not in _GIVEN]
    logs = [parameter for name, parameter in ours.items() if name != "ctx"]
    # typer reads the signature: the context, the argument, the command's own options, then the columns.
    shown = [own[0], logs[0], *own[1:], *logs[1:]]

    @functools.wraps(command)
    def wrapper(**given: Any) -> None:
        ctx = context(given[own[0].name])
        options = {parameter.name: given.pop(parameter.name) for parameter in logs}
        if "log" in theirs:
            given["log"] = options["log"]
        if "load_log" in theirs:
            given["load_log"] = lambda: _arguments(ctx, **options).load()
        if "log_arguments" in theirs:
            given["log_arguments"] = _arguments(ctx, **options)
        command(**given)

    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in shown]
    wrapper.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    return wrapper


def ties_spread(name: str, log: EventLog, seed: int) -> EventLog:
    """A log that was loaded by this name, with its ties spread (stream.ties); MovieLens's are already."""
    return log if name in FILES else spread_ties(log, seed)


def _pair(text: str) -> tuple[str, str]:
    value, equals, name = text.rpartition("=")
    if not equals or not value or not name:
        raise ConfigError(f"--action-value {text!r}: write VALUE=NAME, for example 5=save")
    return value, name
