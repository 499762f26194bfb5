"""A batch of ranking requests, as tensors.

Letters: B windows, T events of a window, P requests of a window, C candidates of a request (the event's own first), n items that
the batch looks up, J tasks, k width of a content embedding.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ranker.head.context import NAMES


class Batch(NamedTuple):
    """Items are places among the n that the batch looks up.

    Attributes:
        rows: `(8, n)` their rows in the sub-tables.
        items, actions, surfaces, gaps: `(B, T)` the windows.
        lengths: `(B, P)` events of its window before each request.
        candidates: `(B, P, C)`, some of them randomised in training.
        content: `(B, P, C, k)` f32 of the true candidates; k is 0 without content.
        ages_ms: `(B, P, C)`.
        features: `(B, P, C, 5)` f32 (ranker.head.context).
        labels: `(B, P, C, J)` f32, 0 or 1.
        real: `(B, P)` bool: not padding.
    """

    rows: Tensor
    items: Tensor
    actions: Tensor
    surfaces: Tensor
    gaps: Tensor
    lengths: Tensor
    candidates: Tensor
    content: Tensor
    ages_ms: Tensor
    features: Tensor
    labels: Tensor
    real: Tensor

    def without_states(self) -> Batch:
        """The same requests of users that have none."""
        features = self.features.clone()
        features[..., NAMES.index("log_history")] = 0
        return self._replace(lengths=torch.zeros_like(self.lengths), features=features)

    def to(self, device: torch.device) -> Batch:
        return Batch(*(tensor.to(device) for tensor in self))
