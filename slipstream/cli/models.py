"""`slipstream train` and `export`: from an event log to a model bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schemas.bundle import PRESETS
from schemas.errors import ConfigError
from slipstream.cli import logs
from slipstream.cli.context import context, needs_extra
from slipstream.cli.stages import Json


def register(app: typer.Typer) -> None:
    app.command("train")(_train)
    app.command("export")(_export)


def _train(
    command: typer.Context,
    log: logs.Log,
    out: Annotated[Path | None, typer.Option(help="Checkpoint directory [default: DATA_DIR/checkpoint]")] = None,
    preset: Annotated[str, typer.Option(help=f"Size of the model: {', '.join(PRESETS)}")] = "nano",
    share: Annotated[float, typer.Option(min=0, max=1, help="Train on this first share of the log, by time")] = 1.0,
    max_seconds: Annotated[float, typer.Option(min=1, help="Time for the training")] = 60.0,
    seed: Annotated[int, typer.Option(help="Of the weights and the batches")] = 0,
    no_export: Annotated[bool, typer.Option("--no-export", help="Only the checkpoint, no bundle")] = False,
    user: logs.User = "user_id",
    item: logs.Item = "item_id",
    action: logs.Action = "action",
    surface: logs.Surface = "surface",
    timestamp: logs.Timestamp = "timestamp_ms",
    timestamp_unit: logs.TimestampUnit = "ms",
    action_value: logs.ActionValue = None,
    item_ids: logs.ItemIds = "auto",
    skip_bad_rows: logs.SkipBadRows = False,
    json: Json = False,
) -> None:
    """Train a PinFM on an event log, and export it to the bundle that workers and rankers load.

    Examples:

      slipstream train ml-100k --share 0.8

      slipstream train mine.parquet --preset small --max-seconds 1800 --user uid --item pin --timestamp at
    """
    with needs_extra("train", "train"):
        from slipstream.training import train_and_export

    ctx = context(command)
    if preset not in PRESETS:
        raise ConfigError(f"--preset {preset!r}: choose one of {', '.join(PRESETS)}")
    loaded = logs.load(
        ctx, log, user, item, action, surface, timestamp, timestamp_unit, action_value, item_ids, skip_bad_rows
    )
    settings = ctx.settings
    made = train_and_export(
        loaded.log.split(share)[0],
        checkpoint=out or settings.data_dir / "checkpoint",
        bundle=None if no_export else settings.bundle_dir,
        preset=preset,
        max_seconds=max_seconds,
        seed=seed,
        console=ctx.console,
        source=f"{log}, first {share:.0%} by time",
    )
    if json:
        ctx.emit(made)
    else:
        for name, value in made.items():
            ctx.say(f"{name}: {value}")


def _export(
    command: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint directory, as `slipstream train` writes it")],
    json: Json = False,
) -> None:
    """Export a checkpoint to the model bundle (`--bundle`, by default DATA_DIR/model): graphs, tables, manifest.

    Examples:

      slipstream --bundle models/next export var/checkpoint
    """
    with needs_extra("train", "export"):
        from encoder.export import export

    ctx = context(command)
    manifest = export(checkpoint, ctx.settings.bundle_dir)
    if json:
        ctx.emit({"model_id": manifest.model_id, "bundle": str(ctx.settings.bundle_dir)})
    else:
        ctx.say(f"model {manifest.model_id} in {ctx.settings.bundle_dir}")
