"""`slipstream train` and `export`: from an event log to a model bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from schemas.bundle import PRESETS
from schemas.errors import ConfigError
from slipstream.cli.context import EXIT_INTERRUPTED, context, needs_extra
from slipstream.cli.logs import LogArguments, reads_log
from slipstream.cli.stages import Json


def register(app: typer.Typer) -> None:
    app.command("train")(_train)
    app.command("export")(_export)


@reads_log
def _train(
    command: typer.Context,
    log_arguments: LogArguments,
    settings_file: Annotated[
        Path | None, typer.Option("--config", help="TOML: any field of the training, `preset`, a table `shape`")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Checkpoint directory [default: DATA_DIR/checkpoint]")] = None,
    preset: Annotated[str | None, typer.Option(help=f"Size: {', '.join(PRESETS)} [default: nano]")] = None,
    share: Annotated[float, typer.Option(min=0, max=1, help="Train on this first share of the log, by time")] = 1.0,
    rows: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of each item sub-table [default: four for each item of the log, up to a power of two]"
        ),
    ] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Time for the training [default: 60]")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Steps of the training [default: as time allows]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the weights and the batches [default: 0]")] = None,
    validation: Annotated[
        float | None, typer.Option(help="Share of the log that chooses the step that is kept [default: 0, the last]")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda [default: auto]")] = None,
    devices: Annotated[int | None, typer.Option(help="GPUs, or processes on the CPU [default: 1]")] = None,
    precision: Annotated[str | None, typer.Option(help="32-true, bf16-mixed or 16-mixed [default: 32-true]")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any field, as in the file; repeatable")
    ] = None,
    on_disk: Annotated[
        Path | None, typer.Option(help="Directory for the log's columns, which are mapped: for logs larger than memory")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where this training was stopped; begin if it never ran")
    ] = False,
    no_export: Annotated[bool, typer.Option("--no-export", help="Only the checkpoint, no bundle")] = False,
    json: Json = False,
) -> None:
    """Train a PinFM on an event log, and export it to the bundle that workers and rankers load (see `export`).

    Ctrl-C or SIGTERM saves the state first; --resume goes on from it. docs/training.md lists every field.

    Examples:

      slipstream train ml-100k --share 0.8

      slipstream train mine.parquet --preset small --max-seconds 1800 --user uid --item pin --timestamp at

      slipstream train huge.parquet --on-disk /data/huge --device cuda --devices 4 --precision bf16-mixed

      slipstream train mine.parquet --config train.toml --set learning_rate=0.003 --resume
    """
    from slipstream.train_settings import train_config

    ctx = context(command)
    flags: dict[str, object] = {
        "preset": preset,
        "shape.rows": rows,
        "max_seconds": max_seconds,
        "max_steps": max_steps,
        "seed": seed,
        "validation": validation,
        "device": device,
        "devices": devices,
        "precision": precision,
    }
    # Wrong settings first: torch and a log take their time.
    train_config(settings_file, flags, assignments or (), items=1, source=log_arguments.source)
    with needs_extra("train", "train"):
        from encoder.train_card import write_card
        from encoder.train_data import in_memory
        from encoder.training import STATE, Stopped
        from slipstream.cli.train_data import data_on_disk
        from slipstream.training import asked_to_stop, export_to, train_with_progress

    checkpoint = out or ctx.settings.data_dir / "checkpoint"
    if not resume and (checkpoint / STATE / "state.json").exists():
        raise ConfigError(
            f"{checkpoint / STATE}: a training was stopped here: go on with --resume, or remove that directory to begin anew"
        )
    if on_disk is None:
        data = in_memory(log_arguments.load().log.split(share)[0])
    elif share == 1:
        data = data_on_disk(log_arguments, on_disk)
    else:
        raise ConfigError("--share: a log --on-disk is taken whole: set held_out instead")
    items = len(data.histories.item_ids)
    config = train_config(settings_file, flags, assignments or (), items=items, source=log_arguments.source)
    try:
        with asked_to_stop() as stop:
            made = train_with_progress(data, config, checkpoint, ctx.console, resume=resume, stop=stop)
    except Stopped as stopped:
        ctx.say(f"stopped at step {stopped.step}; the same command with --resume goes on")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    made["card"] = str(write_card(checkpoint))
    if not no_export:
        manifest, bundle = export_to(checkpoint, ctx.settings.data_dir, ctx.settings.bundle)
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
