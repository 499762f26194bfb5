"""The steps of a training. Letters: B windows of W = T + 1 events, N negatives, m items, d width."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from encoder.features import item_rows
from encoder.losses import crossing_loss, next_item_loss
from encoder.model import PinFM
from encoder.threads import Threads
from encoder.train_config import Progress, TrainConfig
from encoder.windows import Histories, Windows, cut, training_spans
from schemas.errors import ConfigError

#: The inverse temperature grows to this at most (as in CLIP): beyond it, single targets dominate a step.
_MAX_SCALE = 100.0
_PROGRESS_EVERY_S = 0.5


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
