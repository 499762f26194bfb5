"""Training a PinFM from an event log, by a budget of time or of steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from encoder.checkpoint import Checkpoint, CheckpointNotes, save_checkpoint
from encoder.features import item_rows, item_seeds
from encoder.losses import crossing_loss, next_item_loss
from encoder.model import PinFM
from encoder.threads import Threads
from encoder.validation import validate
from encoder.windows import Histories, Windows, cut, histories, training_spans
from schemas.bundle import PRESETS, ModelShape
from schemas.errors import ConfigError
from schemas.log import EventLog
from schemas.vocabulary import Vocabulary

#: The inverse temperature grows to this at most (as in CLIP): beyond it, single targets dominate a step.
_MAX_SCALE = 100.0
_PROGRESS_EVERY_S = 0.5


@dataclass(frozen=True)
class TrainConfig:
    """
    Attributes:
        shape: the model's sizes.
        source: where the log comes from, in words, for the manifest.
        seed: of the weights, the batches and the item hashes. With `max_steps`, no `max_seconds` and fixed `threads`, a training
            can be repeated bit by bit on the same machine.
        max_seconds: end after this long; the learning rate falls to its end by then, however fast the machine is.
        max_steps: end after this many steps.
        batch_windows: windows of a step, of up to `shape.context` events each.
        negatives: items that all windows of a step are told apart from: half of them from the step's own windows, half uniformly
            sampled.
        crossing_weight: of the crossing loss; 0 leaves it out.
        crossing_positions, crossing_candidates: places of a window that candidates cross with, and candidates of each place.
        not_targets: actions that a model should not foresee; they stay in its context.
        held_out: share of the log, its end, that is not trained on but measured.
        threads: of torch; None to choose by measuring.
    """

    shape: ModelShape = PRESETS["nano"]
    source: str = ""
    seed: int = 0
    max_seconds: float | None = 60.0
    max_steps: int | None = None
    batch_windows: int = 8
    learning_rate: float = 6e-3
    warmup_steps: int = 100
    weight_decay: float = 0.1
    dropout: float = 0.1
    negatives: int = 512
    crossing_weight: float = 0.1
    crossing_positions: int = 4
    crossing_candidates: int = 8
    not_targets: tuple[str, ...] = ("hide",)
    held_out: float = 0.05
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.max_seconds is None and self.max_steps is None:
            raise ConfigError("max_seconds or max_steps must be set, or training never ends")
        limits = {
            "max_seconds": self.max_seconds is None or self.max_seconds > 0,
            "max_steps": self.max_steps is None or self.max_steps > 0,
            "batch_windows": self.batch_windows > 0,
            "learning_rate": self.learning_rate > 0,
            "warmup_steps": self.warmup_steps >= 0,
            "weight_decay": self.weight_decay >= 0,
            "dropout": 0 <= self.dropout < 1,
            "negatives": self.negatives > 0,
            "crossing_weight": self.crossing_weight >= 0,
            "crossing_positions": self.crossing_positions > 0,
            "crossing_candidates": self.crossing_candidates > 1,
            "held_out": 0 <= self.held_out < 1,
            "threads": self.threads is None or self.threads > 0,
        }
        wrong = [name for name, good in limits.items() if not good]
        if wrong:
            raise ConfigError("; ".join(f"{name}: {getattr(self, name)} is out of range" for name in wrong))


class Progress(NamedTuple):
    """How far a training is. Losses are means since the last report."""

    step: int
    share: float  # of the budget, 0 to 1
    loss: float
    crossing_loss: float
    steps_per_s: float
    remaining_s: float


@dataclass(frozen=True)
class TrainReport:
    """
    Attributes:
        checkpoint: the directory that was written.
        events: events trained on.
        metrics: on the held-out end of the log (encoder.validation.Validation); empty if nothing was held out.
    """

    checkpoint: Path
    steps: int
    seconds: float
    events: int
    users: int
    items: int
    loss: float
    crossing_loss: float
    metrics: dict[str, float] = field(default_factory=dict)


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
    model = PinFM(config.shape, log.vocabulary)
    seeds = item_seeds(config.seed)
    threads = Threads(config.threads)
    try:
        loop = _Loop(model, data, seeds, positive, config)
        result = loop.run(started_s, threads, progress)
        metrics = {}
        if first_held_out < len(log):
            metrics = validate(model.eval(), histories(log), first_held_out, seeds, positive)._asdict()
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


class _Loop:
    """Steps of training."""

    def __init__(
        self,
        model: PinFM,
        data: Histories,
        seeds: tuple[int, ...],
        positive: NDArray[np.bool_],
        config: TrainConfig,
    ) -> None:
        self._model, self._data, self._positive, self._config = model, data, positive, config
        self._rng = np.random.default_rng(config.seed)
        self._spans = training_spans(data, config.shape.context, config.batch_windows, self._rng)
        self._rows = torch.from_numpy(item_rows(data.item_ids, seeds, config.shape.rows))  # (8, m)
        matrices = [p for p in model.parameters() if p.dim() >= 2]
        vectors = [p for p in model.parameters() if p.dim() < 2]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)

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
                        f"training diverged at step {step} (loss {loss}): lower learning_rate {config.learning_rate}"
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
            sums += self._step(self._learning_rate(step, share))
            threads.step_ends()
            step, since = step + 1, since + 1

    def _learning_rate(self, step: int, share: float) -> float:
        """Linear warm-up, then a half cosine down to 2%."""
        warm = min(1.0, (step + 1) / max(self._config.warmup_steps, 1))
        return self._config.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))

    def _step(self, learning_rate: float) -> tuple[float, float]:
        """One step; returns the two losses."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        windows = cut(self._data, next(self._spans), self._positive)
        loss, crossing = self._losses(windows)
        self._optimizer.zero_grad(set_to_none=True)
        (loss + self._config.crossing_weight * crossing).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        with torch.no_grad():
            self._model.log_scale.clamp_(max=math.log(_MAX_SCALE))
        return float(loss.detach()), float(crossing.detach())

    def _losses(self, w: Windows) -> tuple[Tensor, Tensor]:
        model, config = self._model, self._config
        n_items = len(self._data.item_ids)
        sampled = self._rng.integers(0, n_items, -(-config.negatives // 2))
        crossed = self._crossed(w)
        # (B, positions, candidates): the item that came next, and sampled ones.
        candidates = self._rng.integers(0, n_items, (*crossed.shape, config.crossing_candidates))
        candidates[..., 0] = np.take_along_axis(w.items, crossed, axis=1)
        # Each item of the step is looked up and goes through psi once.
        used, place = np.unique(np.concatenate([w.items.ravel(), sampled, candidates.ravel()]), return_inverse=True)
        items = model.item_embeddings(self._rows[:, torch.from_numpy(used)])  # (n, d)
        vectors = model.item_vectors(items)
        in_windows, in_sample, in_candidates = np.split(place, [w.items.size, w.items.size + len(sampled)])
        in_windows = in_windows.reshape(w.items.shape)

        tokens = model.event_tokens(
            functional.embedding(torch.from_numpy(in_windows[:, :-1]), items),
            torch.from_numpy(w.actions[:, :-1]),
            torch.from_numpy(w.surfaces[:, :-1]),
        )
        hidden, context = model.encode(functional.dropout(tokens, config.dropout))
        negatives = self._negatives(in_windows[:, 1:][w.is_target], in_sample)  # (N,)
        own = np.zeros((len(w.items), len(used)), bool)
        np.put_along_axis(own, in_windows, True, axis=1)
        loss = next_item_loss(
            hidden,
            functional.embedding(torch.from_numpy(in_windows[:, 1:]), vectors),
            torch.from_numpy(w.is_target),
            vectors[torch.from_numpy(negatives)],
            torch.from_numpy(own[:, negatives]),
            model.log_scale,
        )
        can_cross = torch.from_numpy(w.is_target.any(axis=1))
        if not (config.crossing_weight and can_cross.any()):
            return loss, loss.new_zeros(())
        crossing_items = functional.embedding(torch.from_numpy(in_candidates.reshape(len(w.items), -1)), items)
        lengths = torch.from_numpy(np.repeat(crossed, config.crossing_candidates, axis=1))
        _, scores = model.cross(model.candidate_tokens(crossing_items), context, lengths)
        return loss, crossing_loss(scores.view(candidates.shape)[can_cross].flatten(0, 1))

    def _negatives(self, targets: NDArray[np.int64], sampled: NDArray[np.int64]) -> NDArray[np.int64]:
        """As many of the batch's targets, which are drawn as often as they are popular, as of uniformly sampled items."""
        n = len(sampled)
        if len(targets) > n:
            targets = targets[self._rng.integers(0, len(targets), n)]
        return np.union1d(targets, sampled)

    def _crossed(self, w: Windows) -> NDArray[np.int64]:
        """Events that candidates compete with, `(B, positions)`: random targets of each window, or its second event."""
        counts = w.is_target.sum(axis=1)
        chosen = self._rng.integers(0, np.maximum(counts, 1)[:, None], (len(counts), self._config.crossing_positions))
        order = np.argsort(~w.is_target, axis=1, kind="stable")  # each row's targets first
        return np.take_along_axis(order, chosen, axis=1) + 1


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
