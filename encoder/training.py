"""Training a PinFM from an event log, by a budget of time or of steps.

What it writes into the directory of its checkpoint: the checkpoint (encoder.checkpoint), metrics.jsonl and tensorboard/ (encoder.
train_record), and while it runs, state/, from which it can be resumed (encoder.train_state).
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from encoder.checkpoint import Checkpoint, CheckpointNotes, save_checkpoint
from encoder.features import item_seeds
from encoder.model import PinFM
from encoder.threads import Threads
from encoder.train_config import NOT_TARGETS, Measured, Progress, TrainConfig, TrainReport
from encoder.train_data import TrainingData, in_memory, open_data, part, write_data
from encoder.train_launch import Stop, Tell, device_of, launch
from encoder.train_loop import Stopped, TrainLoop, Watch
from encoder.train_record import Recorder
from encoder.train_state import TrainState, describe, find_state, remove_state, require_same
from encoder.validation import Validator
from schemas.errors import ConfigError
from schemas.log import EventLog
from schemas.vocabulary import Vocabulary

__all__ = ["STATE", "Progress", "Stopped", "TrainConfig", "TrainReport", "train"]

#: In the checkpoint's directory: what a training that was stopped is resumed from.
STATE = "state"


def train(
    log: EventLog | TrainingData,
    config: TrainConfig,
    out: Path | str,
    progress: Callable[[Progress], None] | None = None,
    *,
    resume: bool = False,
    stop: Callable[[], bool] | None = None,
) -> TrainReport:
    """Train a model and write its checkpoint to `out`.

    Args:
        log: events in order of arrival.
        progress: called about twice a second.
        resume: go on from the state that an earlier run of this training left in `out`, if there is one.
        stop: asked at every step; once it says yes, the state is saved and Stopped is raised.

    Raises:
        LogError: there is nothing to learn from.
        ConfigError: an action that the log's vocabulary lacks, a training that diverged, devices that are not there, or a state
            of another training.
        ContractError: a state that is damaged.
        Stopped: as asked.
    """
    started_s = time.monotonic()
    out = Path(out)
    device = device_of(config)
    data = in_memory(log) if isinstance(log, EventLog) else log
    _positive(data.vocabulary, config)
    state = find_state(out / STATE) if resume else None
    if state:
        require_same(state, config, data.fingerprint, out / STATE)
    run = _Run(config, out, state, time.time() - (time.monotonic() - started_s))
    tell, asked = progress or (lambda _: None), stop or (lambda: False)
    if config.devices == 1:
        return launch(config, device, lambda *given: run(data, *given), tell, asked)
    if data.directory:
        return launch(config, device, _FromDisk(run, data.directory), tell, asked)
    with tempfile.TemporaryDirectory(prefix="slipstream-train-") as directory:
        write_data(data, directory)
        return launch(config, device, _FromDisk(run, Path(directory)), tell, asked)


@dataclasses.dataclass(frozen=True)
class _Run:
    """A training as each of its processes sees it. `started_at` is Unix time, which all of them know."""

    config: TrainConfig
    out: Path
    state: TrainState | None
    started_at: float

    def __call__(self, data: TrainingData, fabric: Fabric, tell: Tell, stop: Stop) -> TrainReport:
        config = self.config
        started_s = time.monotonic() - (time.time() - self.started_at)
        positive, seeds = _positive(data.vocabulary, config), item_seeds(config.seed)
        held_out = len(data) - int(len(data) * config.held_out)
        validation = held_out - int(len(data) * config.validation)
        trained_on = part(data.histories, validation)
        torch.manual_seed(config.seed)
        model = PinFM(config.shape, data.vocabulary, config.block_dropout, config.time_gaps)
        threads = _threads(fabric, config)
        try:
            loop = TrainLoop(fabric, model, data, trained_on, seeds, positive, config, self.out / STATE)
            if self.state:
                loop.resume(self.state)
            validator = None
            if validation < held_out:
                validator = Validator(
                    data.histories,
                    validation,
                    seeds,
                    positive,
                    config.shape.context,
                    until=part(data.histories, held_out),
                    max_users=config.validation_users,
                    sample_seed=config.seed,
                )
            last = self._loop(loop, fabric, started_s, threads, validator, tell, stop)
            kept = loop.kept()
            metrics: dict[str, float] = {}
            if held_out < len(data) and fabric.is_global_zero:
                measure = Validator(data.histories, held_out, seeds, positive, config.shape.context).measure
                metrics = measure(kept)._asdict()
        finally:
            if threads:
                threads.restore()
        report = TrainReport(
            self.out,
            last.step,
            last.seconds if self.state else time.monotonic() - started_s,
            trained_on.events,
            trained_on.users,
            int((trained_on.counts > 0).sum()),
            last.loss,
            last.crossing_loss,
            metrics,
            loop.best,
            self.state.step if self.state else 0,
        )
        if fabric.is_global_zero:
            _save(kept, data, seeds, config, report)
            remove_state(self.out / STATE)
        fabric.barrier()
        return report

    def _loop(
        self,
        loop: TrainLoop,
        fabric: Fabric,
        started_s: float,
        threads: Threads | None,
        validator: Validator | None,
        tell: Tell,
        stop: Stop,
    ) -> Progress:
        if not fabric.is_global_zero:
            return loop.run(started_s, threads, validator, Watch(lambda _: None, lambda _: None, stop))
        with Recorder(self.out, self.state.step if self.state else 0) as recorder:

            def told(progress: Progress) -> None:
                recorder.progress(progress)
                tell(progress)

            return loop.run(started_s, threads, validator, Watch(told, recorder.measured, stop))


@dataclasses.dataclass(frozen=True)
class _FromDisk:
    """A run whose data each process maps for itself."""

    run: _Run
    data: Path

    def __call__(self, fabric: Fabric, tell: Tell, stop: Stop) -> TrainReport:
        return self.run(open_data(self.data), fabric, tell, stop)


def _threads(fabric: Fabric, config: TrainConfig) -> Threads | None:
    """None where torch's number of threads is not ours to choose step by step."""
    if fabric.device.type == "cpu" and fabric.world_size == 1:
        return Threads(config.threads)
    if config.threads and fabric.device.type == "cpu":
        torch.set_num_threads(config.threads)
    return None


def _positive(vocabulary: Vocabulary, config: TrainConfig) -> NDArray[np.bool_]:
    unknown = [name for name in config.not_targets if name not in vocabulary.actions]
    if unknown and config.not_targets != NOT_TARGETS:
        raise ConfigError(
            f"not_targets: {unknown} are no actions of the log, which has {', '.join(vocabulary.actions)}"
        )
    positive = np.array([name not in config.not_targets for name in vocabulary.actions])
    if not positive.any():
        raise ConfigError("not_targets: every action is excluded, so there is nothing to foresee")
    return positive


def _save(model: PinFM, data: TrainingData, seeds: tuple[int, ...], config: TrainConfig, report: TrainReport) -> None:
    """The catalogue counts all events of the log, also those held out."""
    times = data.histories.timestamps_ms
    training: dict[str, Any] = {
        "events": report.events,
        "users": report.users,
        "items": report.items,
        "log_events": len(data),
        "log_users": len(data.histories.starts) - 1,
        "log_fingerprint": data.fingerprint,
        "first_event_ms": int(times.min()),
        "last_event_ms": int(times.max()),
        "steps": report.steps,
        "seconds": round(report.seconds, 1),
        "loss": report.loss,
        "crossing_loss": report.crossing_loss,
        "config": {name: value for name, value in describe(config).items() if name != "shape"},
    }
    if report.validated:
        training["validated"] = Measured._asdict(report.validated)
    notes = CheckpointNotes(
        shape=config.shape,
        vocabulary=data.vocabulary,
        item_seeds=seeds,
        training=training,
        metrics=dict(report.metrics),
    )
    ids, counts = np.array(data.histories.item_ids), data.histories.counts.astype(np.int64)
    save_checkpoint(report.checkpoint, Checkpoint(notes, model.weights(), ids, counts))
