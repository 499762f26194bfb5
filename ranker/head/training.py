"""Trains a ranker together with its PinFM, by a budget of time or of steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from encoder.train_optimizer import course
from ranker.head.config import RankerConfig
from ranker.head.model import Ranker
from ranker.head.requests import Requests
from schemas.errors import ConfigError

_PROGRESS_EVERY_S = 0.5
_MAX_GRADIENT_NORM = 1.0


class Progress(NamedTuple):
    """How far a training is; the loss is the mean since the last report."""

    step: int
    share: float  # of the budget, 0 to 1
    loss: float
    seconds: float


def device_of(config: RankerConfig) -> torch.device:
    """
    Raises:
        ConfigError: CUDA is asked for, and there is none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda was asked for, and torch finds no GPU: set it to cpu or auto")
    wanted = "cpu" if config.device == "cpu" or not torch.cuda.is_available() else "cuda"
    return torch.device(wanted)


def train_ranker(
    ranker: Ranker, requests: Requests, config: RankerConfig, progress: Callable[[Progress], None] | None = None
) -> Progress:
    """Train in place; afterwards the ranker is in evaluation mode, on its device.

    Args:
        progress: called about twice a second.

    Returns:
        How far it came, with the loss of its last half second or so.

    Raises:
        ConfigError: the loss is not a number any more; or as device_of.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    device = device_of(config)
    ranker.to(device).train()
    generator = torch.Generator(device).manual_seed(config.seed)
    optimizer = torch.optim.AdamW(
        ranker.module.groups(ranker.head.parameters(), config.learning_rate), weight_decay=config.weight_decay
    )
    highest = [group["lr"] for group in optimizer.param_groups]
    started_s = told_s = time.monotonic()
    losses: list[torch.Tensor] = []
    last = Progress(0, 0.0, float("nan"), 0.0)
    for step, batch in enumerate(requests.training(config)):
        now_s = time.monotonic()
        shares = [0.0]
        shares += [(now_s - started_s) / config.max_seconds] if config.max_seconds else []
        shares += [step / config.max_steps] if config.max_steps else []
        done = max(shares) >= 1 and step > 0
        if losses and (done or now_s - told_s > _PROGRESS_EVERY_S):
            last = Progress(step, min(1.0, max(shares)), float(torch.stack(losses).mean()), now_s - started_s)
            if last.loss != last.loss:
                raise ConfigError(f"the training diverged at step {step}: lower learning_rate")
            losses, told_s = [], now_s
            if progress:
                progress(last)
        if done:
            break
        for group, rate in zip(optimizer.param_groups, highest, strict=True):
            group["lr"] = rate * course(step, max(shares), config.warmup_steps)
        loss = ranker.loss(batch.to(device), generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(ranker.parameters(), _MAX_GRADIENT_NORM)
        optimizer.step()
        losses.append(loss.detach())
    ranker.eval()
    return last
