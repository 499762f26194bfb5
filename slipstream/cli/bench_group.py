"""What all commands of `slipstream bench` share: their group, a Kafka and a Redis of their own, and how a result is told."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.bundle import PRESETS
from schemas.errors import ConfigError
from slipstream.cli.context import Context, interrupt_once, make_room_for, needs_extra
from slipstream.stack import running

if TYPE_CHECKING:
    from bench.path import Lab
    from bench.result import Result

bench = typer.Typer(
    help="Measure it here: on a Kafka and a Redis of its own, side by side with what others offer.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Plot = Annotated[Path | None, typer.Option(help="Write a picture, as SVG")]


def check_plot(plot: Path | None, command: str) -> None:
    """Whether a picture can be drawn and written: asked before the minutes that its figures take.

    Raises:
        PrerequisiteError: matplotlib is not installed.
        ConfigError: the file cannot be written.
    """
    if plot is not None:
        with needs_extra("demo", f"{command} --plot"):
            import bench.plot  # noqa: F401
        make_room_for(plot)


@contextmanager
def lab(ctx: Context) -> Iterator[Lab]:
    """A Kafka and a Redis that nobody else uses, gone when the context is left."""
    from bench.path import Lab

    with interrupt_once(), tempfile.TemporaryDirectory(prefix="slipstream-bench-") as made:
        directory = Path(made)
        with running(directory / "stack", notify=ctx.say) as stack:
            yield Lab(stack, directory / "logs")


def report(ctx: Context, result: Result, json: bool) -> None:
    """The table for people on stderr; with `--json` one object as the last line on stdout."""
    ctx.console.print(result.as_table())
    if json:
        ctx.emit(result.as_json())


def known_presets(names: list[str]) -> tuple[str, ...]:
    """Raises ConfigError for a name that is no preset."""
    for name in names:
        if name not in PRESETS:
            raise ConfigError(f"--preset {name!r}: choose from {', '.join(PRESETS)}")
    return tuple(names)
