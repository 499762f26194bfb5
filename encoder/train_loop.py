"""The steps of a training: batches, optimisers, the learning rate's course, and the average that is kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from encoder.features import item_rows
from encoder.model import PinFM
from encoder.objective import Batches, Objective
from encoder.threads import Threads
from encoder.train_config import Progress, TrainConfig
from encoder.windows import Histories, cut, training_spans
from schemas.errors import ConfigError

_PROGRESS_EVERY_S = 0.5
Tensors = tuple[Tensor, ...] | list[Tensor]


class TrainLoop:
    """Trains a model in place."""

    def __init__(
        self,
        model: PinFM,
        data: Histories,
        seeds: tuple[int, ...],
        positive: NDArray[np.bool_],
        config: TrainConfig,
    ) -> None:
        self._data, self._positive, self._config = data, positive, config
        self._rng = np.random.default_rng(config.seed)
        self._spans = training_spans(data, config.shape.context, config.batch_tokens, self._rng)
        self._batches = Batches(item_rows(data.item_ids, seeds, config.shape.rows), data.counts, config)
        self._objective = Objective(model, config)
        self._optimizers = _optimizers(model, config)
        self._average = AveragedModel(model, multi_avg_fn=_averaging(config.averaging))

    @property
    def average(self) -> PinFM:
        """The model that is kept: the average over the steps so far."""
        averaged = self._average.module
        assert isinstance(averaged, PinFM)
        return averaged

    def run(self, started_s: float, threads: Threads, progress: Callable[[Progress], None] | None) -> Progress:
        """Until the budget is spent. Returns the last report."""
        config = self._config
        loop_started_s = reported_s = time.monotonic()
        step, sums, since = 0, np.zeros(2), 0
        report = Progress(0, 0.0, math.nan, math.nan, 0.0, math.nan)
        while True:
            now_s = time.monotonic()
            share = max(
                (now_s - started_s) / config.max_seconds if config.max_seconds else 0.0,
                step / config.max_steps if config.max_steps else 0.0,
            )
            done = share >= 1 and step > 0
            if since and (done or now_s - reported_s >= _PROGRESS_EVERY_S):
                loss, crossing = (float(x) for x in sums / since)
                if not math.isfinite(loss + crossing):
                    raise ConfigError(
                        f"training diverged at step {step} (loss {loss}): lower learning_rate {config.learning_rate} and "
                        f"matrix_learning_rate {config.matrix_learning_rate}"
                    )
                remaining_s = (now_s - loop_started_s) * (1 - share) / share if share else math.nan
                rate = step / max(now_s - loop_started_s, 1e-9)
                report = Progress(step, min(share, 1.0), loss, crossing, rate, max(remaining_s, 0.0))
                reported_s, since = now_s, 0
                sums[:] = 0
                if progress:
                    progress(report)
            if done:
                return report
            threads.step_begins()
            sums += self._step(share, step)
            threads.step_ends()
            step, since = step + 1, since + 1

    def _step(self, share: float, step: int) -> tuple[float, float]:
        """One step; returns the loss of the next item and of the crossing."""
        course = _course(step, share, self._config.warmup_steps)
        windows = cut(self._data, next(self._spans), self._positive)
        losses = self._objective(self._batches.make(windows, self._rng))
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        nn.utils.clip_grad_norm_(self._objective.parameters(), 1.0)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * course
            optimizer.step()
        self._average.update_parameters(self._objective.model)
        return float(losses.next.detach()), float(losses.crossing.detach())


def _course(step: int, share: float, warmup_steps: int) -> float:
    """The learning rate over its highest: a linear warm-up, then half a cosine down to 2%."""
    warm = min(1.0, (step + 1) / max(warmup_steps, 1))
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))


def _optimizers(model: PinFM, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices that multiply, AdamW for tables and vectors."""
    matrices = [
        module.weight for name, module in model.named_modules() if isinstance(module, nn.Linear) and name != "score"
    ]
    ids = {id(matrix) for matrix in matrices}
    others = [p for p in model.parameters() if id(p) not in ids]
    groups = [
        {"params": [p for p in others if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in others if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True),
        torch.optim.Muon(matrices, lr=config.matrix_learning_rate, weight_decay=config.weight_decay),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def _averaging(most: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """An exponential average over about the last ninth of the steps, until that is longer than `most` says."""

    def update(averages: Tensors, values: Tensors, steps: Tensor | int) -> None:
        torch._foreach_lerp_(list(averages), list(values), max(1 - most, 9 / (10 + int(steps))))

    return update
