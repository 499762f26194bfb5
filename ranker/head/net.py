"""The head of arXiv 2412.01985 (Pinterest Homefeed): parallel MaskNet blocks under DCNv2 layers, a logit for each task.

e       = what the state says, item and context, each layer-normed, side by side                 (..., E)
block_i = relu(norm(W_i (e * V_i relu(U_i e))))      U widens by `mask_ratio`                     MaskNet, arXiv 2102.07619
x_0     = blocks side by side; x_l+1 = x_0 * (W_l x_l + b_l) + x_l                               DCNv2, arXiv 2008.13535
logits  = W x_L + b
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoder.graph_parts import LAYER_NORM_EPSILON
from ranker.head.config import RankerConfig
from ranker.head.context import NAMES


class MaskBlock(nn.Module):
    """An instance-guided mask on the input, and a layer on what it leaves."""

    def __init__(self, inputs: int, width: int, ratio: float) -> None:
        super().__init__()
        wide = max(1, round(ratio * inputs))
        self.mask_up, self.mask_down = nn.Linear(inputs, wide), nn.Linear(wide, inputs)
        self.out, self.norm = nn.Linear(inputs, width), nn.LayerNorm(width, eps=LAYER_NORM_EPSILON)
        nn.init.ones_(self.mask_down.bias)  # at first it masks nothing

    def forward(self, x: Tensor) -> Tensor:
        """`(..., E)` -> `(..., width)`."""
        masked = x * self.mask_down(functional.relu(self.mask_up(x)))
        return functional.relu(self.norm(self.out(masked)))


class Head(nn.Module):
    """Scores candidates."""

    def __init__(self, d: int, tasks: int, config: RankerConfig) -> None:
        """
        Args:
            d: width of item embeddings, and of each of the one or two parts of what the state says (`config.fusion`).
        """
        super().__init__()
        self.context = nn.Linear(len(NAMES), config.context_width)
        widths = (*[d] * (config.early + config.late), d, config.context_width)
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=LAYER_NORM_EPSILON) for width in widths)
        self.blocks = nn.ModuleList(
            MaskBlock(sum(widths), config.width, config.mask_ratio) for _ in range(config.mask_blocks)
        )
        x = config.mask_blocks * config.width
        self.dropout = nn.Dropout(config.dropout)
        self.crosses = nn.ModuleList(nn.Linear(x, x) for _ in range(config.cross_layers))
        self.tasks = nn.Linear(x, tasks)

    def forward(self, states: Sequence[Tensor], items: Tensor, features: Tensor) -> Tensor:
        """
        Args:
            states: what the state says of each candidate, `(..., d)` each: crossed with it, times its vector; zeros: nothing.
            items: `(..., d)` item embeddings.
            features: `(..., 5)` context features.

        Returns:
            `(..., J)` logits.
        """
        parts = (*states, items, functional.relu(self.context(features)))
        e = torch.cat([norm(part) for norm, part in zip(self.norms, parts, strict=True)], -1)
        first = x = self.dropout(torch.cat([block(e) for block in self.blocks], -1))
        for cross in self.crosses:
            x = first * cross(x) + x
        logits: Tensor = self.tasks(x)
        return logits
