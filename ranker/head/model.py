"""Head and PinFM as one module, trained jointly: the user's window is encoded once, and the candidates of its requests meet it.

Letters as in requests.py; d width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoder.finetune import FineTuneConfig, FineTuned, ranking_loss
from encoder.model import PinFM
from ranker.head.config import RankerConfig
from ranker.head.net import Head
from ranker.head.requests import Batch


class Ranker(nn.Module):
    """Logits of candidates. In evaluation nothing is random."""

    def __init__(self, model: PinFM, config: RankerConfig, tasks: int, content_width: int = 0) -> None:
        """
        Args:
            tasks: J.
            content_width: k, of candidates' content embeddings; 0: none.

        Raises:
            ConfigError: as FineTuneConfig.
        """
        super().__init__()
        self._config = config
        self.module = FineTuned(
            model,
            FineTuneConfig(
                tasks=tasks,
                random_candidates=config.random_candidates,
                age_dropout=config.age_dropout,
                learnable_token=config.learnable_token,
                content_width=content_width,
                learning_rate_ratio=config.module_rate,
            ),
        )
        self.head = Head(model.shape.d_model, tasks, config)

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor | None]:
        """
        Args:
            generator: of the age dependent dropout.

        Returns:
            `(B, P C, J)` logits of the ranker; those of the module alone, where it crosses candidates.
        """
        model = self.module.model
        embeddings = model.item_embeddings(batch.rows)  # (n, d)
        candidates = functional.embedding(batch.candidates.flatten(1), embeddings)  # (B, P C, d)
        features, own = batch.features.flatten(1, 2), None
        if self._config.fusion == "none":
            hidden = torch.zeros_like(candidates)
        else:
            items = functional.embedding(batch.items, embeddings)  # (B, T, d)
            states, context = model.encode(model.event_tokens(items, batch.actions, batch.surfaces, batch.gaps))
            if self._config.fusion == "late":
                hidden = _late(states, batch.lengths, model.item_vectors(candidates))
            else:
                content = batch.content.flatten(1, 2) if batch.content.shape[-1] else None
                ages_ms = batch.ages_ms.flatten(1)
                hidden, _, own = self.module(context, batch.lengths, candidates, ages_ms, content, generator)
        return self.head(hidden, candidates, features), own

    def loss(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """What is minimised: the ranking loss, and that of the module's own output."""
        logits, own = self(batch, generator)
        labels = batch.labels.flatten(1, 2)
        real = batch.real.repeat_interleave(batch.candidates.shape[2], 1)
        loss = ranking_loss(logits, labels, real)
        if own is not None and self._config.module_loss:
            loss = loss + self._config.module_loss * ranking_loss(own, labels, real)
        return loss


def _late(states: Tensor, lengths: Tensor, vectors: Tensor) -> Tensor:
    """User embedding times item vector, entry by entry; their sum is what retrieval ranks by. Zeros without a state.

    Args:
        states: `(B, T, d)` H of each slot.
        lengths: `(B, P)`.
        vectors: `(B, P C, d)`.
    """
    last = (lengths - 1).clamp(min=0)[..., None].expand(-1, -1, states.shape[-1])
    users = states.gather(1, last) * (lengths > 0)[..., None]  # (B, P, d)
    return users.repeat_interleave(vectors.shape[1] // lengths.shape[1], 1) * vectors
