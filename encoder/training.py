"""Training a PinFM from an event log, by a budget of time or of steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from encoder.checkpoint import Checkpoint, CheckpointNotes, save_checkpoint
from encoder.features import item_seeds
from encoder.model import PinFM
from encoder.threads import Threads
from encoder.train_config import Progress, TrainConfig, TrainReport
from encoder.train_loop import TrainLoop
from encoder.validation import validate
from encoder.windows import histories
from schemas.errors import ConfigError
from schemas.log import EventLog
from schemas.vocabulary import Vocabulary

__all__ = ["Progress", "TrainConfig", "TrainReport", "train"]


def train(
    log: EventLog, config: TrainConfig, out: Path | str, progress: Callable[[Progress], None] | None = None
) -> TrainReport:
    """Train a model and write its checkpoint to `out`.

    Args:
        log: events in order of arrival.
        progress: called about twice a second.

    Raises:
        LogError: there is nothing to learn from.
        ConfigError: an action that the log's vocabulary lacks, or a training that diverged.
    """
    started_s = time.monotonic()
    positive = _positive(log.vocabulary, config)
    first_held_out = len(log) - int(len(log) * config.held_out)
    data = histories(log[:first_held_out])
    torch.manual_seed(config.seed)
    model = PinFM(config.shape, log.vocabulary, config.block_dropout)
    seeds = item_seeds(config.seed)
    threads = Threads(config.threads)
    try:
        loop = TrainLoop(model, data, seeds, positive, config)
        result = loop.run(started_s, threads, progress)
        model = loop.average.eval()
        metrics = {}
        if first_held_out < len(log):
            metrics = validate(model, histories(log), first_held_out, seeds, positive)._asdict()
    finally:
        threads.restore()
    report = TrainReport(
        Path(out),
        result.step,
        time.monotonic() - started_s,
        len(data.items),
        len(data.starts) - 1,
        len(data.item_ids),
        result.loss,
        result.crossing_loss,
        metrics,
    )
    _save(model, log, seeds, config, report)
    return report


def _positive(vocabulary: Vocabulary, config: TrainConfig) -> NDArray[np.bool_]:
    unknown = [name for name in config.not_targets if name not in vocabulary.actions]
    if unknown:
        raise ConfigError(
            f"not_targets: {unknown} are no actions of the log, which has {', '.join(vocabulary.actions)}"
        )
    positive = np.array([name not in config.not_targets for name in vocabulary.actions])
    if not positive.any():
        raise ConfigError("not_targets: every action is excluded, so there is nothing to foresee")
    return positive


def _save(model: PinFM, log: EventLog, seeds: tuple[int, ...], config: TrainConfig, report: TrainReport) -> None:
    """The catalogue counts all events of the log, also those held out."""
    ids, counts = np.unique(log.records["item_id"], return_counts=True)
    training: dict[str, Any] = {
        "events": report.events,
        "users": report.users,
        "items": report.items,
        "first_event_ms": int(log.records["timestamp_ms"].min()),
        "last_event_ms": int(log.records["timestamp_ms"].max()),
        "steps": report.steps,
        "seconds": round(report.seconds, 1),
        "loss": report.loss,
        "crossing_loss": report.crossing_loss,
        "config": {name: value for name, value in msgspec.to_builtins(config).items() if name != "shape"},
    }
    notes = CheckpointNotes(
        shape=config.shape,
        vocabulary=log.vocabulary,
        item_seeds=seeds,
        training=training,
        metrics=dict(report.metrics),
    )
    save_checkpoint(
        report.checkpoint, Checkpoint(notes, model.weights(), ids.astype(np.int64), counts.astype(np.int64))
    )
