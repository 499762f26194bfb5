"""SASRec (Kang, McAuley 2018), compact: what people reach for, trained for as long as our model.

Item embeddings tied to the output, learned positions, a pre-LN causal transformer with dropout .2, and a full softmax over the
catalogue, which is stronger than the paper's one sampled negative. Padding stands left, as usual, so the newest event always has
the last position. New items have an embedding that nothing trained.

Letters: B sequences of T events, m items, d width.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from encoder.evaluation.protocol import Split, Targets
from encoder.evaluation.ranking import Rows, Scorer
from encoder.windows import Histories
from schemas.errors import LogError


@dataclass(frozen=True)
class SasrecConfig:
    """
    Attributes:
        max_seconds: of training; max_steps: end after so many steps, if that is earlier.
        length: newest events that are seen.
    """

    max_seconds: float = 60.0
    max_steps: int | None = None
    width: int = 64
    layers: int = 2
    heads: int = 2
    length: int = 200
    dropout: float = 0.2
    learning_rate: float = 1e-3
    batch: int = 16
    seed: int = 0


class Sasrec(nn.Module):
    """Item m is the padding."""

    def __init__(self, items: int, config: SasrecConfig) -> None:
        super().__init__()
        d = config.width
        self.items = nn.Embedding(items + 1, d, padding_idx=items)
        self.positions = nn.Parameter(torch.randn(config.length, d) * 0.02)
        nn.init.normal_(self.items.weight, std=0.02)
        block = nn.TransformerEncoderLayer(
            d, config.heads, 4 * d, config.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, config.layers, nn.LayerNorm(d), enable_nested_tensor=False)
        self.dropout = nn.Dropout(config.dropout)
        self._heads = config.heads

    def forward(self, items: Tensor) -> Tensor:
        """`(B, T)` left-padded -> `(B, T, d)`. What stands on padding means nothing."""
        steps = items.shape[1]
        x = self.items(items) * self.items.embedding_dim**0.5 + self.positions[-steps:]
        future = torch.ones(steps, steps, dtype=torch.bool).triu(1)
        # A padded place sees itself, so that its softmax is one.
        padded = items.eq(self.items.num_embeddings - 1)[:, None, :] & ~torch.eye(steps, dtype=torch.bool)
        hidden: Tensor = self.blocks(self.dropout(x), mask=(future | padded).repeat_interleave(self._heads, 0))
        return hidden


def train_sasrec(
    split: Split, config: SasrecConfig, progress: Callable[[float, float], None] | None = None
) -> tuple[Scorer, int]:
    """Train on the split's training events. Returns the scorer of its targets, and the steps that were done.

    Args:
        progress: called now and then with the share that is done, and the loss.

    Raises:
        LogError: no user has two training events.
    """
    data, counts = split.data, split.train_counts
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    users = np.flatnonzero(counts >= 2)
    if not len(users):
        raise LogError("no user has two training events: there is nothing for SASRec to learn from")
    parts = -(-(counts[users] - 1) // config.length)  # a long history is drawn as often as it has windows
    weight = parts / parts.sum()
    model = Sasrec(len(data.item_ids), config).train()
    optimizer = torch.optim.Adam(model.parameters(), config.learning_rate, betas=(0.9, 0.98))
    started = told = time.monotonic()
    step, loss = 0, torch.zeros(())
    while True:
        now = time.monotonic()
        share = max((now - started) / config.max_seconds, step / config.max_steps if config.max_steps else 0.0)
        if step and share >= 1:
            break
        if progress and now - told > 0.5:
            progress(share, float(loss.detach()))
            told = now
        chosen = rng.choice(users, config.batch, p=weight)
        window = np.minimum(counts[chosen], config.length + 1)
        end = data.starts[chosen] + window + rng.integers(0, counts[chosen] - window + 1)
        inputs = torch.from_numpy(left_padded(data, end - 1, window - 1, int(window.max()) - 1))
        truth = torch.from_numpy(left_padded(data, end, window - 1, int(window.max()) - 1))
        real = truth != len(data.item_ids)
        logits = model(inputs)[real] @ model.items.weight[:-1].T
        loss = functional.cross_entropy(logits, truth[real])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        step += 1
    return _scorer(model.eval(), data, split.targets, config.length), step


def left_padded(data: Histories, end: Rows, events: Rows, width: int) -> NDArray[np.int64]:
    """The items of the `events` before each place `end`, `(B, width)`."""
    place = np.arange(width) - width
    return np.where(place >= -events[:, None], data.items[np.maximum(end[:, None] + place, 0)], len(data.item_ids))


def _scorer(model: Sasrec, data: Histories, targets: Targets, length: int) -> Scorer:
    @torch.no_grad()
    def score(rows: Rows) -> NDArray[np.floating[Any]]:
        chosen = targets.take(rows)
        hidden = []
        for at in range(0, len(rows), 128):
            some = chosen.take(np.arange(at, min(at + 128, len(rows))))
            seen = np.minimum(some.before, length)
            hidden.append(model(torch.from_numpy(left_padded(data, some.event, seen, int(seen.max()))))[:, -1])
        scores: NDArray[np.floating[Any]] = (torch.cat(hidden) @ model.items.weight[:-1].T).numpy()
        return scores

    return score
