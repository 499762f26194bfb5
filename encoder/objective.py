"""What one step of a training computes: a batch of windows, drawn in numpy, and its losses, computed in torch.

Letters: B windows, W = T + 1 events, n items that a step looks up, N negatives, P places that candidates cross with, C candidates
of a place, m items of the catalogue, d width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from encoder.losses import EXCLUDED, Horizon, crossing_loss, foresee
from encoder.model import KeyValues, PinFM
from encoder.train_config import TrainConfig
from encoder.windows import Windows

#: The inverse temperature grows to this at most (as in CLIP): beyond it, single targets dominate a step.
_MAX_SCALE = 100.0


class Batch(NamedTuple):
    """Of tensors; items are places among the n that the step looks up.

    Attributes:
        rows: `(8, n)` their rows in the sub-tables.
        items, actions, surfaces, gaps: `(B, W)`; pads repeat the window's first item.
        is_target: `(B, T)`.
        negatives: `(N,)`.
        log_q: `(N,)` f32, log of the chance that each was drawn with; 0 for all of a catalogue that is used whole.
        crossed: `(B, P)`, the event that candidates compete with, 1 to T; candidates: `(B, P, C)`, the true one first.
    """

    rows: Tensor
    items: Tensor
    actions: Tensor
    surfaces: Tensor
    gaps: Tensor
    is_target: Tensor
    negatives: Tensor
    log_q: Tensor
    crossed: Tensor
    candidates: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


class Losses(NamedTuple):
    """Scalars. `total` is what is minimised, the others its parts, unweighted."""

    total: Tensor
    next: Tensor
    multi: Tensor
    future: Tensor
    crossing: Tensor


class Batches:
    """Turns windows into batches: which items a step looks up, its negatives and its candidates."""

    def __init__(self, rows: NDArray[np.int64], counts: NDArray[np.int64], config: TrainConfig) -> None:
        """
        Args:
            rows: `(8, m)` of the catalogue's items.
            counts: `(m,)` events of each.
        """
        self._rows, self._config, self._items = rows, config, len(counts)
        self._whole = config.negatives is None and len(counts) <= config.whole_catalogue_items
        self._negatives = config.negatives or config.whole_catalogue_items
        self._popular = counts / counts.sum()

    def make(self, w: Windows, rng: np.random.Generator) -> Batch:
        config = self._config
        crossed = self._crossed(w, rng)
        candidates = rng.integers(0, self._items, (*crossed.shape, config.crossing_candidates))
        candidates[..., 0] = np.take_along_axis(w.items, crossed, axis=1)
        items = np.where(w.real, w.items, w.items[:, :1])
        if self._whole:
            rows, negatives = self._rows, np.arange(self._items)
            log_q = np.zeros(self._items)
        else:
            chosen = self._sampled(w.items[:, 1:][w.is_target], rng)
            # Each item of the step is looked up and goes through psi once.
            used, place = np.unique(np.concatenate([items.ravel(), chosen, candidates.ravel()]), return_inverse=True)
            rows = self._rows[:, used]
            in_items, negatives, in_candidates = np.split(place, [items.size, items.size + len(chosen)])
            items, candidates = in_items.reshape(items.shape), in_candidates.reshape(candidates.shape)
            log_q = np.log((self._popular[chosen] + 1 / self._items) / 2)
        columns = (rows, items, w.actions, w.surfaces, w.gaps, w.is_target, negatives, log_q.astype(np.float32))
        return Batch(*(torch.from_numpy(np.ascontiguousarray(c)) for c in (*columns, crossed, candidates)))

    def _sampled(self, targets: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """As many of the batch's targets, which are drawn as often as they are popular, as of uniformly sampled items."""
        uniform = rng.integers(0, self._items, -(-self._negatives // 2))
        if len(targets) > self._negatives // 2:
            targets = rng.choice(targets, self._negatives // 2, replace=False)
        return np.union1d(targets, uniform)

    def _crossed(self, w: Windows, rng: np.random.Generator) -> NDArray[np.int64]:
        """Events that candidates compete with, `(B, P)`: random targets of each window, or its second event."""
        counts = w.is_target.sum(axis=1)
        chosen = rng.integers(0, np.maximum(counts, 1)[:, None], (len(counts), self._config.crossing_positions))
        order = np.argsort(~w.is_target, axis=1, kind="stable")  # each row's targets first
        return np.take_along_axis(order, chosen, axis=1) + 1


class Objective(nn.Module):
    """A model with its losses: one forward pass of it is one step, on whatever device and however many of them."""

    def __init__(self, model: PinFM, config: TrainConfig) -> None:
        super().__init__()
        self.model = model
        self._config = config
        self._horizon = Horizon(
            multi=config.multi_token if config.multi_token_weight else 0,
            future_from=config.future_from or config.shape.keep,
            future=config.future_tokens if config.future_token_weight else 0,
        )

    def forward(self, batch: Batch) -> Losses:
        model, config = self.model, self._config
        items = model.item_embeddings(batch.rows)  # (n, d)
        vectors = model.item_vectors(items)
        tokens = model.event_tokens(
            functional.embedding(batch.items[:, :-1], items),
            batch.actions[:, :-1],
            batch.surfaces[:, :-1],
            batch.gaps[:, :-1],
        )
        hidden, context = model.encode(functional.dropout(tokens, config.dropout, self.training))
        bias = items.new_zeros(len(batch.items), len(items)).scatter_(1, batch.items, EXCLUDED)[:, batch.negatives]
        if config.log_q:
            bias = bias - batch.log_q
        foreseen = foresee(
            hidden,
            functional.embedding(batch.items[:, 1:], vectors),
            batch.is_target,
            vectors[batch.negatives],
            bias,
            model.log_scale.clamp(max=math.log(_MAX_SCALE)).exp(),
            self._horizon,
        )
        crossing = self._crossing(batch, items, context) if config.crossing_weight else hidden.new_zeros(())
        total = (
            foreseen.next
            + config.multi_token_weight * foreseen.multi
            + config.future_token_weight * foreseen.future
            + config.crossing_weight * crossing
        )
        return Losses(total, *foreseen, crossing)

    def _crossing(self, batch: Batch, items: Tensor, context: KeyValues) -> Tensor:
        model = self.model
        can_cross = batch.is_target.any(dim=1).repeat_interleave(batch.crossed.shape[1])  # (B * P,)
        candidates = functional.embedding(batch.candidates.flatten(1), items)  # (B, P * C, d)
        lengths = batch.crossed.repeat_interleave(batch.candidates.shape[2], dim=1)
        _, scores = model.cross(model.candidate_tokens(candidates), context, lengths)
        return crossing_loss(scores.view(-1, batch.candidates.shape[2])[can_cross])
