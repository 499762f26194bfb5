"""What a PinFM is trained to do: foresee the next item (arXiv 2507.12704, next-token loss), and score candidates.

Letters: B windows, T tokens, N negatives, C candidates of a position, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

#: Added to the logit of what must not count as a negative.
_EXCLUDED = -1e4


def next_item_loss(
    hidden: Tensor, targets: Tensor, is_target: Tensor, negatives: Tensor, excluded: Tensor, log_scale: Tensor
) -> Tensor:
    """InfoNCE: tell a user's next item from items shared by the whole batch, by cosine and a learned temperature.

    Args:
        hidden: `(B, T, d)` unit length.
        targets: `(B, T, d)` unit length, psi of event t + 1.
        is_target: `(B, T)` bool.
        negatives: `(N, d)` unit length: items of the batch and sampled ones.
        excluded: `(B, N)` bool: items of the window's own user, no negatives for it.
        log_scale: log of the inverse temperature.

    Returns:
        The mean loss of a target, a scalar.
    """
    scale = log_scale.exp()
    logits = (hidden @ (negatives * scale).T).masked_fill(excluded[:, None], _EXCLUDED)  # (B, T, N)
    true = (hidden * targets).sum(-1) * scale  # (B, T)
    losses = torch.logaddexp(logits.logsumexp(-1), true) - true
    return (losses * is_target).sum() / is_target.sum().clamp(min=1)


def crossing_loss(scores: Tensor) -> Tensor:
    """Tell the item that was engaged with from sampled ones, by the crossing's scores. `(n, C)`, the true one first -> scalar."""
    return functional.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long))
