"""`slipstream model`: roll over to another model, and back."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from slipstream.cli.context import Context, context, needs_extra
from slipstream.cli.stages import Json, kafka

if TYPE_CHECKING:
    from slipstream.rollover import Backfill, Models

model = typer.Typer(help="Models side by side: which one rankers read.", no_args_is_help=True, rich_markup_mode=None)
ModelId = Annotated[str, typer.Argument(help="Model id: 16 hexadecimal digits, as `status` lists them")]


def register(app: typer.Typer) -> None:
    app.add_typer(model, name="model")


def _models(ctx: Context, command: str) -> Models:
    with needs_extra("cpu", f"model {command}"):
        from encoder.store_redis import connect
        from slipstream.rollover import Models
    return Models(kafka(ctx), connect(ctx.redis_url), ctx.settings.names)


@model.command("status")
def _status(command: typer.Context, json: Json = False) -> None:
    """List the models that have, or had, encoders here: which one rankers read, encoders that run, lag in changelog records.

    A model that is being filled is backfilled beside its live records: how far it is, how fast, and how long it will take.

    Examples:

      slipstream model status

      slipstream model status --json
    """
    ctx = context(command)
    found = _models(ctx, "status").status()
    if json:
        ctx.emit([status._asdict() | {"backfill": status.backfill and status.backfill._asdict()} for status in found])
        return
    table = Table("model", "rankers read it", "encoders", "lag", "backfill")
    for status in found:
        lag = "-" if status.lag is None else f"{status.lag:,}"
        backfill = "" if status.backfill is None else progress(status.backfill)
        table.add_row(status.model_id, "yes" if status.active else "", str(status.encoders), lag, backfill)
    ctx.console.print(table)


def progress(backfill: Backfill) -> str:
    said = [f"{backfill.left:,} offsets left"]
    if backfill.per_s is None:
        said.append("no encoder runs")
    elif backfill.left_s is not None:
        said += [f"{backfill.per_s:,.0f} a second", f"{timedelta(seconds=round(backfill.left_s))} to go"]
    return ", ".join(said)


@model.command("activate")
def _activate(
    command: typer.Context,
    model_id: ModelId,
    wait: Annotated[float, typer.Option(min=0, help="Seconds that it may take to catch up")] = 60.0,
    json: Json = False,
) -> None:
    """Let rankers read this model, when it has caught up. Back to the former one is the same command: its encoders must run.

    It holds then whatever was in the changelog when the command began. Exit code 6 if it does not catch up in time: nothing
    changed.

    Examples:

      slipstream model activate 3f2a90c1d4e5b678

      slipstream model activate 3f2a90c1d4e5b678 --wait 3600
    """
    ctx = context(command)
    former = _models(ctx, "activate").activate(model_id, wait)
    if json:
        ctx.emit({"active": model_id, "former": former})
    else:
        ctx.say(f"rankers read model {model_id}" + (f", before: {former}" if former else ""))


@model.command("retire")
def _retire(command: typer.Context, model_id: ModelId, json: Json = False) -> None:
    """Delete a model's states and its consumer group. It must not be active, and its encoders must have stopped.

    Interrupted, it can be run again. Its bundle stays: encoders started with it make all its states anew.

    Examples:

      slipstream model retire 3f2a90c1d4e5b678
    """
    ctx = context(command)
    models = _models(ctx, "retire")
    with ctx.console.status(f"deleting the states of {model_id}") as shown:
        deleted = models.retire(model_id, lambda done: shown.update(f"{done:,} states of {model_id} deleted"))
    if json:
        ctx.emit({"retired": model_id, "states_deleted": deleted})
    else:
        ctx.say(f"{deleted:,} states of model {model_id} deleted")
