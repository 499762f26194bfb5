"""What the training of a ranker is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from encoder.train_config import Device
from schemas.errors import ConfigError
from schemas.limits import require_in_range

Fusion = Literal["both", "early", "late", "none"]


@dataclass(frozen=True)
class RankerConfig:
    """
    Attributes:
        tasks: actions that are foreseen, a logit each; those that the log does not have are left out.
        fusion: early: the candidate crosses the state. late: the user embedding times psi(item), entry by entry, whose sum
            retrieval ranks by. both, or none: no state at all.
        random_candidates, age_dropout, learnable_token, module_rate: as encoder.finetune.FineTuneConfig; `module_rate` is its
            `learning_rate_ratio`, 0: the PinFM stays as it is.
        module_loss: weight of the ranking loss on the module's own output (early fusion).
        width: of each MaskNet block's output; mask_blocks, mask_ratio: how many side by side, and how much wider than its input
            the hidden layer of a mask is; cross_layers: DCNv2 layers above them.
        context_width: of the layer that context features go through.
        dropout: of what the blocks give to the cross layers, in training.
        max_seconds, max_steps: end after this; the learning rate falls to its end by then.
        batch_tokens: a step's windows times their length.
        positions: requests of a window: events of it whose item is a candidate.
        sampled: further candidates of each request, that the log does not have (ranker.head.requests).
        learning_rate: of the head; warmup_steps, weight_decay: of both.
        eval_requests: measured are at most this many requests, drawn once; eval_sampled: sampled candidates of each.
        seed: of weights, batches and samples. With `max_steps`, no `max_seconds` and one thread a training can be repeated.
        threads: of torch on the CPU; None: torch's own choice.
    """

    tasks: tuple[str, ...] = ("save", "like", "hide")
    fusion: Fusion = "both"
    random_candidates: float = 0.1
    age_dropout: tuple[tuple[float, float], ...] = ((7.0, 0.7), (28.0, 0.5))
    learnable_token: bool = True
    module_rate: float = 0.1
    module_loss: float = 1.0
    width: int = 64
    mask_blocks: int = 3
    mask_ratio: float = 2.0
    cross_layers: int = 4
    context_width: int = 16
    dropout: float = 0.1
    max_seconds: float | None = 120.0
    max_steps: int | None = None
    batch_tokens: int = 2048
    positions: int = 16
    sampled: int = 8
    learning_rate: float = 3e-3
    warmup_steps: int = 50
    weight_decay: float = 0.01
    eval_requests: int = 5000
    eval_sampled: int = 50
    seed: int = 0
    device: Device = "auto"
    threads: int | None = None

    @property
    def early(self) -> bool:
        return self.fusion in ("early", "both")

    @property
    def late(self) -> bool:
        return self.fusion in ("late", "both")

    def __post_init__(self) -> None:
        if self.max_seconds is None and self.max_steps is None:
            raise ConfigError("max_seconds or max_steps must be set, or training never ends")
        ages = [age for age, _ in self.age_dropout]
        limits = {
            "tasks": bool(self.tasks) and len(set(self.tasks)) == len(self.tasks),
            "fusion": self.fusion in get_args(Fusion),
            "random_candidates": 0 <= self.random_candidates <= 1,
            "age_dropout": ages == sorted(set(ages)) and all(age > 0 and 0 <= p <= 1 for age, p in self.age_dropout),
            "module_rate": self.module_rate >= 0,
            "module_loss": self.module_loss >= 0,
            "width": self.width > 0,
            "mask_blocks": self.mask_blocks > 0,
            "mask_ratio": self.mask_ratio > 0,
            "cross_layers": self.cross_layers >= 0,
            "context_width": self.context_width > 0,
            "dropout": 0 <= self.dropout < 1,
            "max_seconds": self.max_seconds is None or self.max_seconds > 0,
            "max_steps": self.max_steps is None or self.max_steps > 0,
            "batch_tokens": self.batch_tokens > 0,
            "positions": self.positions > 0,
            "sampled": self.sampled >= 0,
            "learning_rate": self.learning_rate > 0,
            "warmup_steps": self.warmup_steps >= 0,
            "weight_decay": self.weight_decay >= 0,
            "eval_requests": self.eval_requests > 0,
            "eval_sampled": self.eval_sampled > 0,
            "device": self.device in get_args(Device),
            "threads": self.threads is None or self.threads > 0,
        }
        require_in_range(self, limits)
