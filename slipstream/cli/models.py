"""`slipstream train` and `export`: from an event log to a model bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
import typer

from encoder.tables import rows_for
from schemas.bundle import PRESETS
from schemas.errors import ConfigError
from slipstream.cli.context import context, needs_extra
from slipstream.cli.logs import LoadLog, reads_log
from slipstream.cli.stages import Json


def register(app: typer.Typer) -> None:
    app.command("train")(_train)
    app.command("export")(_export)


@reads_log
def _train(
    command: typer.Context,
    load_log: LoadLog,
    out: Annotated[Path | None, typer.Option(help="Checkpoint directory [default: DATA_DIR/checkpoint]")] = None,
    preset: Annotated[str, typer.Option(help=f"Size of the model: {', '.join(PRESETS)}")] = "nano",
    share: Annotated[float, typer.Option(min=0, max=1, help="Train on this first share of the log, by time")] = 1.0,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Of each item sub-table [default: the log's items, up to a power of two]")
    ] = None,
    max_seconds: Annotated[float, typer.Option(min=1, help="Time for the training")] = 60.0,
    seed: Annotated[int, typer.Option(help="Of the weights and the batches")] = 0,
    no_export: Annotated[bool, typer.Option("--no-export", help="Only the checkpoint, no bundle")] = False,
    json: Json = False,
) -> None:
    """Train a PinFM on an event log, and export it to the bundle that workers and rankers load (see `export`).

    Examples:

      slipstream train ml-100k --share 0.8

      slipstream train mine.parquet --preset small --max-seconds 1800 --user uid --item pin --timestamp at
    """
    with needs_extra("train", "train"):
        from encoder.training import TrainConfig
        from slipstream.training import export_to, train_with_progress

    ctx = context(command)
    if preset not in PRESETS:
        raise ConfigError(f"--preset {preset!r}: choose one of {', '.join(PRESETS)}")
    loaded = load_log()
    settings = ctx.settings
    checkpoint = out or settings.data_dir / "checkpoint"
    log = loaded.log.split(share)[0]
    shape = msgspec.structs.replace(PRESETS[preset], rows=rows or rows_for(len(np.unique(log.records["item_id"]))))
    config = TrainConfig(shape, seed=seed, max_seconds=max_seconds)
    made = train_with_progress(log, config, checkpoint, ctx.console)
    if not no_export:
        manifest, bundle = export_to(checkpoint, settings.data_dir, settings.bundle)
        made |= {"model_id": manifest.model_id, "bundle": str(bundle)}
    if json:
        ctx.emit(made)
    else:
        for name, value in made.items():
            ctx.say(f"{name}: {value}")


def _export(
    command: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint directory, as `slipstream train` writes it")],
    tables: Annotated[
        Literal["fp16", "int4"], typer.Option(help="Code of the items' table: int4 has a third of the bytes")
    ] = "fp16",
    json: Json = False,
) -> None:
    """Export a checkpoint to a model bundle: graphs, tables, manifest.

    It goes to --bundle, or else to DATA_DIR/models/<model id>, and DATA_DIR/model becomes a link to it.

    Examples:

      slipstream --bundle models/next export var/checkpoint

      slipstream export var/checkpoint --tables int4
    """
    with needs_extra("train", "export"):
        from slipstream.training import export_to

    ctx = context(command)
    manifest, bundle = export_to(checkpoint, ctx.settings.data_dir, ctx.settings.bundle, tables)
    if json:
        ctx.emit({"model_id": manifest.model_id, "bundle": str(bundle)})
    else:
        ctx.say(f"model {manifest.model_id} in {bundle}")
