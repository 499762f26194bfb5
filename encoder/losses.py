"""What a PinFM is trained to do: foresee items (arXiv 2507.12704: next-, multi- and future-token loss), score candidates.

All three are InfoNCE: tell a true item from items that the whole batch shares, by cosine and a learned temperature.

Letters: B windows, T tokens, N negatives, C candidates of a place, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

#: Added to the logit of what must not count as a negative.
EXCLUDED = -1e4


@dataclass(frozen=True)
class Horizon:
    """How far ahead the losses beside the next item look.

    Attributes:
        multi: multi-token loss: the items 2 to `multi` steps ahead; below 2 there is none.
        future_from, future: future-token loss: from the state of `future_from` events, the `future` items after it; 0: none.
    """

    multi: int = 0
    future_from: int = 0
    future: int = 0


class Foreseen(NamedTuple):
    """Mean losses of a target, scalars; 0 where there is no target."""

    next: Tensor
    multi: Tensor
    future: Tensor


def foresee(
    hidden: Tensor, targets: Tensor, is_target: Tensor, negatives: Tensor, bias: Tensor, scale: Tensor, horizon: Horizon
) -> Foreseen:
    """
    Args:
        hidden: `(B, T, d)` unit length, of events 0 to t.
        targets: `(B, T, d)` unit length, psi of event t + 1.
        is_target: `(B, T)` bool: event t + 1 is to be foreseen.
        negatives: `(N, d)` unit length.
        bias: `(B, N)`, added to the logits of negatives: EXCLUDED for items of the window's own user, which are no negatives
            for it; minus log q for those drawn with probability q (log-Q correction).
        scale: the inverse temperature, a scalar.
    """
    scaled = hidden * scale
    logits = (scaled @ negatives.T).add_(bias[:, None])  # (B, T, N)
    others = logits.logsumexp(-1)  # (B, T)
    true = (scaled * targets).sum(-1)
    zero = true.new_zeros(())
    multi = future = zero
    if horizon.multi > 1 or horizon.future:
        ahead = scaled @ targets.transpose(1, 2)  # (B, T, T): of state t with event s + 1
        t = torch.arange(hidden.shape[1], device=hidden.device)
        steps = t - t[:, None] + 1  # how far ahead of state t event s + 1 is
        losses = _info_nce(others[..., None], ahead)
        if horizon.multi > 1:
            multi = _mean(losses, is_target[:, None] & (steps > 1) & (steps <= horizon.multi))
        if horizon.future:
            from_there = (t == horizon.future_from - 1)[:, None]
            future = _mean(losses, is_target[:, None] & from_there & (steps >= 1) & (steps <= horizon.future))
    return Foreseen(_mean(_info_nce(others, true), is_target), multi, future)


def _info_nce(others: Tensor, true: Tensor) -> Tensor:
    return torch.logaddexp(others, true) - true


def _mean(losses: Tensor, counted: Tensor) -> Tensor:
    return (losses * counted).sum() / counted.sum().clamp(min=1)


def crossing_loss(scores: Tensor) -> Tensor:
    """Tell the item that was engaged with from sampled ones, by the crossing's scores. `(n, C)`, the true one first -> scalar."""
    return functional.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long, device=scores.device))
