"""What a training is told, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from schemas.bundle import PRESETS, ModelShape
from schemas.errors import ConfigError


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
        batch_tokens: a step's windows times their length: windows of like length, of up to `shape.context` events each.
        learning_rate: of AdamW, for embeddings and vectors; matrix_learning_rate: of Muon (K. Jordan, 2024), for the matrices of
            blocks and MLPs. Both warm up over `warmup_steps` and fall to 2% along half a cosine.
        dropout: of tokens; block_dropout: of each block's two residual branches.
        averaging: the model that is kept is an exponential average over the steps, with this factor at most.
        time_gaps: tokens hold the time since the event before.
        negatives: items that all windows of a step are told apart from: half of them from the step's own windows, half uniformly
            sampled. None: the whole catalogue while it has `whole_catalogue_items` at most, else that many.
        log_q: correct for how likely a sampled negative was drawn.
        multi_token_weight, multi_token: multi-token loss (PinFM), and how many steps ahead it looks.
        future_token_weight, future_tokens, future_from: future-token loss (PinFM): from the state of `future_from` events (None:
            `shape.keep`), the `future_tokens` events after it.
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
    batch_tokens: int = 2048
    learning_rate: float = 6e-3
    matrix_learning_rate: float = 0.02
    warmup_steps: int = 100
    weight_decay: float = 0.1
    dropout: float = 0.2
    block_dropout: float = 0.1
    averaging: float = 0.998
    time_gaps: bool = True
    negatives: int | None = None
    whole_catalogue_items: int = 8192
    log_q: bool = False
    multi_token_weight: float = 0.1
    multi_token: int = 3
    future_token_weight: float = 0.0
    future_tokens: int = 32
    future_from: int | None = None
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
            "batch_tokens": self.batch_tokens > 0,
            "learning_rate": self.learning_rate > 0,
            "matrix_learning_rate": self.matrix_learning_rate > 0,
            "warmup_steps": self.warmup_steps >= 0,
            "weight_decay": self.weight_decay >= 0,
            "dropout": 0 <= self.dropout < 1,
            "block_dropout": 0 <= self.block_dropout < 1,
            "averaging": 0 <= self.averaging < 1,
            "negatives": self.negatives is None or self.negatives > 0,
            "whole_catalogue_items": self.whole_catalogue_items > 0,
            "multi_token_weight": self.multi_token_weight >= 0,
            "multi_token": self.multi_token > 1,
            "future_token_weight": self.future_token_weight >= 0,
            "future_tokens": self.future_tokens > 0,
            "future_from": self.future_from is None or 0 < self.future_from < self.shape.context,
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
