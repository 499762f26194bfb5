"""The steps of a training, the same on one CPU and on several GPUs (Lightning Fabric): each process draws batches of its own,
their gradients are averaged, and all of them keep the same weights.

What is random in a step comes from the seed, the process and the step's number, so a training that is resumed takes the steps
that it would have taken.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from encoder.model import PinFM
from encoder.objective import Batch, Objective
from encoder.threads import Threads
from encoder.train_batches import Draws
from encoder.train_clock import Clock
from encoder.train_config import Measured, Progress, TrainConfig
from encoder.train_data import Part, TrainingData
from encoder.train_optimizer import Average, MuonWithAdamW, course
from encoder.train_state import TrainState, describe, load_tensors, save_state
from encoder.validation import Validator
from schemas.errors import ConfigError

_PROGRESS_EVERY_S = 0.5
_MODEL, _AVERAGE, _BEST, _OPTIMIZER = "model.", "average.", "best.", "optimizer."


class Stopped(Exception):  # noqa: N818 - like KeyboardInterrupt, it is what was asked for
    """A training was asked to stop, and left a state at `step` (none if that is 0)."""

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step


class Watch(NamedTuple):
    """Who is told, in the first process alone."""

    progress: Callable[[Progress], None]
    measured: Callable[[Measured], None]
    stop: Callable[[], bool]


class TrainLoop:
    """Trains a model in place."""

    def __init__(
        self,
        fabric: Fabric,
        model: PinFM,
        data: TrainingData,
        part: Part,
        seeds: tuple[int, ...],
        positive: NDArray[np.bool_],
        config: TrainConfig,
        directory: Path,
    ) -> None:
        """
        Args:
            part: of the data, what is trained on.
            directory: of the state that a training is resumed from.
        """
        self._fabric, self._model, self._config, self._directory = fabric, model, config, directory
        self._fingerprint = data.fingerprint
        self._draws = Draws(fabric, data, part, seeds, positive, config)
        model.to(fabric.device)
        self._optimizer = MuonWithAdamW(model, config)
        self._average = Average(model, config.averaging)
        self._objective, self._stepper = fabric.setup(Objective(model, config), self._optimizer)
        self._step, self._spent_s = 0, 0.0
        self.best: Measured | None = None
        self._best_weights: dict[str, Tensor] = {}
        self._since_best = 0
        self._saved_step = self._measured_step = 0

    def kept(self) -> PinFM:
        """The model that was best on the validation window, or else the average over the steps so far. In evaluation mode."""
        model = self._average.model
        if self._best_weights:
            model.load_state_dict(self._best_weights)
        return model.eval()

    # ---- state

    def resume(self, state: TrainState) -> None:
        """Go on from a state of this training."""
        tensors = load_tensors(self._directory, state)

        def of(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

        self._model.load_state_dict(of(_MODEL))
        self._average.model.load_state_dict(of(_AVERAGE))
        self._optimizer.load_tensors(of(_OPTIMIZER))
        self._fabric.strategy.precision.load_state_dict(dict(state.scaler))
        self._step, self._spent_s = state.step, state.seconds
        self._saved_step = self._measured_step = state.step
        self.best, self._best_weights, self._since_best = state.best, of(_BEST), state.since_best

    def _save(self, seconds: float) -> None:
        tensors = {
            **{_MODEL + name: t for name, t in self._model.state_dict().items()},
            **{_AVERAGE + name: t for name, t in self._average.model.state_dict().items()},
            **{_BEST + name: t for name, t in self._best_weights.items()},
            **{_OPTIMIZER + name: t for name, t in self._optimizer.tensors().items()},
        }
        state = TrainState(
            tensors=f"state-{self._step}.safetensors",
            step=self._step,
            seconds=seconds,
            fingerprint=self._fingerprint,
            config=describe(self._config),
            best=self.best,
            since_best=self._since_best,
            scaler=dict(self._fabric.strategy.precision.state_dict()),
        )
        save_state(self._directory, state, tensors)

    # ---- steps

    def run(self, started_s: float, threads: Threads | None, validator: Validator | None, watch: Watch) -> Progress:
        """Until the budget is spent or the model stops getting better. Returns the last report.

        Raises:
            ConfigError: it diverged.
            Stopped: it was asked to, and its state is saved.
        """
        config, fabric = self._config, self._fabric
        clock = Clock(fabric, self._spent_s, started_s, watch.stop)
        drawn = self._draws.batches(self._step)
        first_step, begun_s = self._step, time.monotonic()
        reported_s = saved_s = measured_s = clock.at(self._step)[0]
        sums, since, events, finished = torch.zeros(2, device=fabric.device), 0, 0, False
        report = Progress(self._step, 0.0, math.nan, math.nan, 0.0, math.nan, 0.0, 0.0, 0.0)
        while True:
            now_s, stopped = clock.at(self._step)
            share = max(
                now_s / config.max_seconds if config.max_seconds else 0.0,
                self._step / config.max_steps if config.max_steps else 0.0,
            )
            done = (share >= 1 and self._step > 0) or finished
            if since and (done or stopped or now_s - reported_s >= _PROGRESS_EVERY_S):
                loss, crossing = self._mean(sums, since)
                ran_s = max(time.monotonic() - begun_s, 1e-9)
                report = Progress(
                    self._step,
                    min(share, 1.0),
                    loss,
                    crossing,
                    (self._step - first_step) / ran_s,
                    0.0 if done else max(now_s * (1 - share) / share, 0.0) if share else math.nan,
                    events * fabric.world_size / ran_s,
                    course(self._step - 1, share, config.warmup_steps),
                    now_s,
                )
                reported_s, since = now_s, 0
                sums.zero_()
                watch.progress(report)
            if validator and self._step > self._measured_step and (done or self._is_due(now_s - measured_s)):
                finished = self._measure(validator, now_s, watch)
                self._measured_step, measured_s = self._step, now_s
                if finished and not done:
                    continue
            if done:
                return report
            due = config.checkpoint_every_s > 0 and now_s - saved_s >= config.checkpoint_every_s
            if (due or stopped) and self._step > self._saved_step:
                if fabric.is_global_zero:
                    self._save(now_s)
                fabric.barrier()
                self._saved_step, saved_s = self._step, now_s
            if stopped:
                raise Stopped(self._step)
            if threads:
                threads.step_begins()
            batch = next(drawn)
            sums += self._take(batch.batch, course(self._step, share, config.warmup_steps))
            if threads:
                threads.step_ends()
            self._step, since, events = self._step + 1, since + 1, events + batch.events

    def _take(self, batch: Batch, rate: float) -> Tensor:
        """One step; returns the loss of the next item and of the crossing, `(2,)`, on the device."""
        torch.manual_seed(self._draws.dropout_seed(self._step))
        losses = self._objective(batch.to(self._fabric.device))
        self._stepper.zero_grad(set_to_none=True)
        self._fabric.backward(losses.total)
        self._fabric.clip_gradients(self._objective, self._stepper, max_norm=1.0, error_if_nonfinite=False)
        self._optimizer.set_course(rate)
        self._stepper.step()
        self._average.update(self._step)
        return torch.stack([losses.next.detach(), losses.crossing.detach()])

    def _mean(self, sums: Tensor, steps: int) -> tuple[float, float]:
        """Means of the losses over steps and processes.

        Raises:
            ConfigError: one is not finite.
        """
        mean = self._fabric.all_reduce(sums / steps, reduce_op="mean")
        assert isinstance(mean, Tensor)
        loss, crossing = mean.tolist()
        if not math.isfinite(loss + crossing):
            raise ConfigError(
                f"training diverged at step {self._step} (loss {loss}): lower learning_rate {self._config.learning_rate} and "
                f"matrix_learning_rate {self._config.matrix_learning_rate}"
            )
        return loss, crossing

    # ---- validation

    def _is_due(self, since_s: float) -> bool:
        config = self._config
        if config.validate_every_steps:
            return self._step % config.validate_every_steps == 0
        return since_s >= config.validate_every_s

    def _measure(self, validator: Validator, now_s: float, watch: Watch) -> bool:
        """Measure the averaged model and keep it if it is the best; returns whether to end."""
        if self._fabric.is_global_zero:
            model = self._average.model.eval()
            got = validator.measure(model)
            measured = Measured(self._step, now_s, got.hr10, got.ndcg10, got.targets)
            watch.measured(measured)
            self._since_best += 1
            if self.best is None or measured.ndcg10 > self.best.ndcg10:
                self.best, self._since_best = measured, 0
                self._best_weights = {name: t.detach().clone() for name, t in model.state_dict().items()}
        ended: bool = self._fabric.broadcast(0 < self._config.patience <= self._since_best)
        return ended
