"""`slipstream bench NAME`: the figures of the README, each by one command.

The only place that imports the package `bench`, and only when one of its commands is run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from slipstream.cli.context import Context

if TYPE_CHECKING:
    from bench.result import Result

bench = typer.Typer(
    help="Measure it here: on a Kafka and a Redis of its own, side by side with what others offer.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    app.add_typer(bench, name="bench")


def report(ctx: Context, result: Result, json: bool) -> None:
    """The table for people on stderr; with `--json` one object as the last line on stdout."""
    ctx.console.print(result.as_table())
    if json:
        ctx.emit(result.as_json())
