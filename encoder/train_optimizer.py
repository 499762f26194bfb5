"""How a training's weights move: Muon and AdamW as one optimiser, the learning rate's course, the average that is kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from encoder.model import PinFM
from encoder.train_config import TrainConfig


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for the matrices that multiply, AdamW for tables and vectors.

    One optimiser, since a loss scaler (16-mixed) unscales and updates once for each optimiser that steps.
    """

    def __init__(self, model: PinFM, config: TrainConfig) -> None:
        matrices = [
            module.weight for name, module in model.named_modules() if isinstance(module, nn.Linear) and name != "score"
        ]
        ids = {id(matrix) for matrix in matrices}
        others = [p for p in model.parameters() if id(p) not in ids]
        groups = [
            {"params": [p for p in others if p.dim() >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in others if p.dim() < 2], "weight_decay": 0.0},
        ]
        super().__init__([*others, *matrices], {})
        self.parts: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True),
            "muon": torch.optim.Muon(matrices, lr=config.matrix_learning_rate, weight_decay=config.weight_decay),
        }
        self.param_groups = [group for part in self.parts.values() for group in part.param_groups]
        for group in self.param_groups:
            group["initial_lr"] = group["lr"]

    def set_course(self, course: float) -> None:
        """Learning rates as a share of their highest."""
        for group in self.param_groups:
            group["lr"] = group["initial_lr"] * course

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for part in self.parts.values():
            part.step()

    def tensors(self) -> dict[str, Tensor]:
        """What it remembers of the steps so far, by name."""
        return {
            f"{name}.{index}.{what}": value
            for name, part in self.parts.items()
            for index, values in part.state_dict()["state"].items()
            for what, value in values.items()
        }

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over `tensors()` of another of the same model."""
        for name, part in self.parts.items():
            state: dict[int, dict[str, Any]] = {}
            for key, value in tensors.items():
                owner, index, what = key.split(".")
                if owner == name:
                    state.setdefault(int(index), {})[what] = value
            part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})
        self.param_groups = [group for part in self.parts.values() for group in part.param_groups]


def course(step: int, share: float, warmup_steps: int) -> float:
    """The learning rate over its highest: a linear warm-up, then half a cosine down to 2%."""
    warm = min(1.0, (step + 1) / max(warmup_steps, 1))
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))


class Average:
    """An exponential average over about the last ninth of the steps, until that is longer than `most` says."""

    def __init__(self, model: PinFM, most: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._most = most
        self._averages: list[Tensor] = list(self.model.parameters())
        self._values: list[Tensor] = list(model.parameters())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After each step, the first of which is 0."""
        weight = max(1 - self._most, 9 / (10 + step)) if step else 1.0
        torch._foreach_lerp_(self._averages, self._values, weight)
