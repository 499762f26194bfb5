"""What a training is told, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from schemas.bundle import PRESETS, ModelShape
from schemas.errors import ConfigError
from schemas.limits import require_in_range

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
#: Unless something else is asked for. A log without this action is no mistake then.
NOT_TARGETS = ("hide",)


@dataclass(frozen=True)
class TrainConfig:
    """
    Attributes:
        shape: the model's sizes.
        source: where the log comes from, in words, for the manifest.
        seed: of the weights, the batches and the item hashes. With `max_steps`, no `max_seconds` and fixed `threads`, a training
            can be repeated bit by bit on the same machine's CPU.
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
        validation: share of the log, just before what is held out, that is not trained on either: the model is measured on it now
            and then, the best one is kept, and a training that stops getting better ends early. 0: none, the last one is kept.
        validate_every_s: at least this long between two measurements; validate_every_steps: if given, by steps instead, so that
            the same steps are measured on any machine.
        validation_users: measured are at most this many users, drawn once.
        patience: end after this many measurements without a better NDCG@10; 0: never.
        checkpoint_every_s: a training can be resumed from what it wrote this often; 0: only from where it was stopped.
        device: `cpu`, `cuda`, or `auto`: CUDA if there is any.
        devices: processes, each on a GPU of its own (or all on the CPU) with `batch_tokens` of its own a step.
        precision: `32-true`, or `bf16-mixed` or `16-mixed`: matrix products in half the bits.
        threads: of torch on the CPU; None to choose by measuring, or with several `devices`, to share the cores out.
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
    not_targets: tuple[str, ...] = NOT_TARGETS
    held_out: float = 0.05
    validation: float = 0.0
    validate_every_s: float = 60.0
    validate_every_steps: int | None = None
    validation_users: int = 1000
    patience: int = 5
    checkpoint_every_s: float = 120.0
    device: Device = "auto"
    devices: int = 1
    precision: Precision = "32-true"
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
            "validation": 0 <= self.validation < 1 - self.held_out,
            "validate_every_s": self.validate_every_s > 0,
            "validate_every_steps": self.validate_every_steps is None or self.validate_every_steps > 0,
            "validation_users": self.validation_users > 0,
            "patience": self.patience >= 0,
            "checkpoint_every_s": self.checkpoint_every_s >= 0,
            "device": self.device in get_args(Device),
            "devices": self.devices > 0,
            "precision": self.precision in get_args(Precision),
            "threads": self.threads is None or self.threads > 0,
        }
        require_in_range(self, limits)


class Progress(NamedTuple):
    """How far a training is. Losses are means since the last report."""

    step: int
    share: float  # of the budget, 0 to 1
    loss: float
    crossing_loss: float
    steps_per_s: float
    remaining_s: float
    events_per_s: float
    learning_rate: float  # over its highest
    seconds: float  # that the training has taken, all its runs together


class Measured(NamedTuple):
    """How well the averaged model of a step foresees the validation window."""

    step: int
    seconds: float
    hr10: float
    ndcg10: float
    targets: int


@dataclass(frozen=True)
class TrainReport:
    """
    Attributes:
        checkpoint: the directory that was written.
        events: events trained on.
        metrics: on the held-out end of the log (encoder.validation.Validation); empty if nothing was held out.
        validated: what the kept model was measured at, if there is a validation window.
        resumed_from: the step that an earlier run had come to; 0: begun anew.
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
    validated: Measured | None = None
    resumed_from: int = 0
