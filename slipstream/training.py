"""Training with a progress bar for people, and where its bundles go: what `slipstream train`, `export` and the demo share.

Bundles are immutable, so each model has a directory of its own, `models/<model id>`, and `model` is a link to the latest.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from encoder.export import export
from encoder.training import Progress as TrainingProgress
from encoder.training import TrainConfig, train
from schemas.bundle import FP16, Manifest
from schemas.errors import BundleError
from schemas.log import EventLog

LATEST = "model"
MODELS = "models"


def train_with_progress(log: EventLog, config: TrainConfig, checkpoint: Path, console: Console) -> dict[str, Any]:
    """Train, write the checkpoint, and return what the training came to.

    Raises:
        LogError, ConfigError: as encoder.training.train.
    """
    columns = (
        TextColumn("train"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("step {task.fields[step]}, loss {task.fields[loss]:.3f}, {task.fields[speed]:.1f} steps/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("train", total=1.0, step=0, loss=float("nan"), speed=0.0)

        def show(progress: TrainingProgress) -> None:
            bar.update(
                task, completed=progress.share, step=progress.step, loss=progress.loss, speed=progress.steps_per_s
            )

        report = train(log, config, checkpoint, show)
    trained: dict[str, Any] = msgspec.to_builtins(report, enc_hook=str)
    return trained


def export_to(checkpoint: Path, data_dir: Path, bundle: Path | None, tables: str = FP16) -> tuple[Manifest, Path]:
    """Export a checkpoint to `bundle`; if that is None to `data_dir`/models/<model id>, and link it as `data_dir`/model.

    Args:
        tables: as encoder.export.export.

    Returns:
        The manifest, and the bundle's directory.

    Raises:
        ConfigError: no such code of tables.
        BundleError: as encoder.export.export; or something else than our link is at `data_dir`/model.
    """
    if bundle is not None:
        return export(checkpoint, bundle, tables), bundle
    latest = data_dir / LATEST
    if latest.exists() and not latest.is_symlink():
        raise BundleError(f"{latest} is not a link to the latest model: move it away, or name a bundle with --bundle")
    models = data_dir / MODELS
    unnamed = models / f".new-{os.getpid()}"
    manifest = export(checkpoint, unnamed, tables)
    final = models / manifest.model_id
    if final.exists():  # the same model, exported before
        for file in unnamed.iterdir():
            file.unlink()
        unnamed.rmdir()
    else:
        unnamed.rename(final)
    link = data_dir / f".{LATEST}-{os.getpid()}"
    link.symlink_to(Path(MODELS) / manifest.model_id)
    link.replace(latest)
    return manifest, final
