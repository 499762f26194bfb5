"""Head and PinFM as one module, trained jointly: the user's window is encoded once, and the candidates of its requests meet it.

Letters as in requests.py; d width.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from encoder.finetune import FineTuneConfig, FineTuned, ranking_loss
from encoder.model import PinFM
from ranker.head.batch import Batch
from ranker.head.config import RankerConfig
from ranker.head.net import Head


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
        features = batch.features.flatten(1, 2)
        if self._config.fusion == "none":
            return self.head([], candidates, features), None
        items = functional.embedding(batch.items, embeddings)  # (B, T, d)
        slots, context = model.encode(model.event_tokens(items, batch.actions, batch.surfaces, batch.gaps))
        late = _late(slots, batch.lengths, model.item_vectors(candidates))
        if not self._config.early:
            return self.head([late], candidates, features), None
        content = batch.content.flatten(1, 2) if batch.content.shape[-1] else None
        hidden, kept, own = self.module(
            context, batch.lengths, candidates, batch.ages_ms.flatten(1), content, generator
        )
        states = [hidden, late * kept[..., None]] if self._config.late else [hidden]
        return self.head(states, candidates, features), own

    def loss(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """What is minimised: the ranking loss, and that of the module's own output."""
        logits, own = self(batch, generator)
        labels = batch.labels.flatten(1, 2)
        real = batch.real.repeat_interleave(batch.candidates.shape[2], 1)
        loss = ranking_loss(logits, labels, real)
        if own is not None and self._config.module_loss:
            loss = loss + self._config.module_loss * ranking_loss(own, labels, real)
        return loss

    def weights(self) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
        """The PinFM's weights (encoder.weights), and all others by name, as copies."""
        others = {name: value for name, value in self.state_dict().items() if not name.startswith("module.model.")}
        return self.module.model.weights(), {name: value.cpu().numpy().copy() for name, value in others.items()}


def _late(slots: Tensor, lengths: Tensor, vectors: Tensor) -> Tensor:
    """User embedding times item vector, entry by entry. Zeros without a state.

    Args:
        slots: `(B, T, d)` H of each.
        lengths: `(B, P)`.
        vectors: `(B, P C, d)`.
    """
    last = (lengths - 1).clamp(min=0)[..., None].expand(-1, -1, slots.shape[-1])
    users = slots.gather(1, last) * (lengths > 0)[..., None]  # (B, P, d)
    return users.repeat_interleave(vectors.shape[1] // lengths.shape[1], 1) * vectors
