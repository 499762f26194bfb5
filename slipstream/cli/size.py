"""`slipstream size`: what a deployment takes, on paper."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from schemas.bundle import PRESETS
from schemas.errors import ConfigError
from slipstream.cli.context import context
from slipstream.cli.stages import Json
from slipstream.sizing import BUSY, Demand, size
from slipstream.sizing_costs import Costs, with_measured
from slipstream.sizing_table import header, markdown, rows


def register(app: typer.Typer) -> None:
    app.command("size")(_size)


def _size(
    command: typer.Context,
    users: Annotated[list[float] | None, typer.Option(help="That have a state; repeatable [default: 1e6]")] = None,
    events_per_s: Annotated[list[float] | None, typer.Option(help="At the peak; repeatable [default: 1e4]")] = None,
    preset: Annotated[str, typer.Option(help=f"Model size: {', '.join(PRESETS)}")] = "small",
    events_per_user: Annotated[int, typer.Option(help="In a sequence, on average")] = Demand.events_per_user,
    hot_share: Annotated[
        float, typer.Option(help="Of the refreshes, those whose state an encoder still has in memory")
    ] = Demand.hot_share,
    reads_per_s: Annotated[float, typer.Option(help="States that rankers read")] = Demand.reads_per_s,
    measured: Annotated[
        list[Path] | None,
        typer.Option(
            help="What `slipstream bench stream, refresh or scale --json` printed on your machine; repeatable"
        ),
    ] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table on stdout")] = False,
    json: Json = False,
) -> None:
    """What so many users and events take: bytes, Redis shards, encoder cores or GPUs, Kafka partitions; and what ends first.

    Arithmetic from measured costs: ours, or those of your machines. docs/scaling.md tells what it assumes.

    Examples:

      slipstream size --users 1e8 --events-per-s 1e5

      slipstream size --users 1e6 --users 5e8 --events-per-s 1e5 --events-per-s 1e6 --preset medium --hot-share 0.9

      slipstream bench refresh --json | tail -1 > refresh.json && slipstream size --users 1e8 --measured refresh.json
    """
    ctx = context(command)
    costs = Costs()
    for file in measured or ():
        costs = with_measured(costs, _result(file), f"--measured {file}")
    demands = [
        Demand(round(n), rate, preset, events_per_user, hot_share, reads_per_s)
        for n, rate in product(users or [1e6], events_per_s or [1e4])
    ]
    sizings = [size(demand, costs) for demand in demands]
    if as_markdown:
        print(markdown(sizings))
    else:
        head = header(sizings)
        table = Table(title=f"{preset}: cores are busy to {BUSY:.0%}", title_justify="left", box=None)
        table.add_column(head.what, no_wrap=True)
        for cell in head.cells:
            table.add_column(cell, justify="right")
        for row in rows(sizings):
            table.add_row(row.what, *row.cells)
        ctx.console.print(table)
    if json:
        ctx.emit(
            [
                {**sizing._asdict(), "machines": sizing.machines, "breaks_first": sizing.breaks_first}
                for sizing in sizings
            ]
        )


def _result(file: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise ConfigError(f"--measured {file}: cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise ConfigError(f"--measured {file}: not what `slipstream bench NAME --json` prints: {error}") from None
