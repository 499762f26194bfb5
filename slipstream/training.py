"""Training with a progress bar for people, and where its bundles go: what `slipstream train`, `export` and the demo share.

Bundles are immutable, so each model has a directory of its own, `models/<model id>`, and `model` is a link to the latest.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from encoder.export import export
from encoder.train_data import TrainingData
from encoder.training import Progress as TrainingProgress
from encoder.training import TrainConfig, train
from schemas.bundle import FP16, Manifest
from schemas.errors import BundleError
from schemas.log import EventLog

LATEST = "model"
MODELS = "models"


def train_with_progress(
    log: EventLog | TrainingData,
    config: TrainConfig,
    checkpoint: Path,
    console: Console,
    *,
    resume: bool = False,
    stop: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Train, write the checkpoint, and return what the training came to.

    Raises:
        LogError, ConfigError, ContractError, Stopped: as encoder.training.train.
    """
    columns = (
        TextColumn("train"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("step {task.fields[step]:,}, loss {task.fields[loss]:.3f}, {task.fields[speed]:,.0f} events/s"),
        TextColumn("{task.fields[left]} left"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("train", total=1.0, step=0, loss=float("nan"), speed=0.0, left="-:--")

        def show(p: TrainingProgress) -> None:
            # Ours: it knows that a training may end by time, by steps, or began in an earlier run.
            left = "-:--" if p.remaining_s != p.remaining_s else str(timedelta(seconds=round(p.remaining_s)))
            bar.update(task, completed=p.share, step=p.step, loss=p.loss, speed=p.events_per_s, left=left)

        report = train(log, config, checkpoint, show, resume=resume, stop=stop)
    trained: dict[str, Any] = msgspec.to_builtins(report, enc_hook=str)
    return trained | {"validated": report.validated and report.validated._asdict()}


@contextlib.contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM or Ctrl-C came. A second Ctrl-C is not waited for."""
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    former = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


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
