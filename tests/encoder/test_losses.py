from __future__ import annotations

import pytest
import torch

from encoder.losses import EXCLUDED, Horizon, crossing_loss, foresee


def test_losses_are_softmaxes_without_the_users_own_items() -> None:
    g = torch.Generator().manual_seed(0)
    hidden, targets, negatives = (torch.randn(*size, 8, generator=g) for size in ((2, 3), (2, 3), (5,)))
    is_target = torch.tensor([[True, False, True], [False, True, True]])
    excluded = torch.tensor([[True, False, False, False, True], [False, False, True, False, False]])

    def expected(pairs: list[tuple[int, int, int]]) -> float:
        """The mean over (window, state, target)."""
        losses = []
        for b, t, s in pairs:
            logits = [2.0 * hidden[b, t] @ targets[b, s]]
            logits += [2.0 * hidden[b, t] @ negatives[n] for n in range(5) if not excluded[b, n]]
            losses.append(-torch.stack(logits).log_softmax(0)[0])
        return float(torch.stack(losses).mean())

    bias = excluded * EXCLUDED
    got = foresee(hidden, targets, is_target, negatives, bias, torch.tensor(2.0), Horizon(2, future_from=1, future=9))
    assert float(got.next) == pytest.approx(expected([(0, 0, 0), (0, 2, 2), (1, 1, 1), (1, 2, 2)]))
    assert float(got.multi) == pytest.approx(expected([(0, 1, 2), (1, 0, 1), (1, 1, 2)])), "two steps ahead"
    assert float(got.future) == pytest.approx(expected([(0, 0, 0), (0, 0, 2), (1, 0, 1), (1, 0, 2)])), (
        "all of the first state"
    )
    alone = foresee(hidden, targets, is_target, negatives, bias, torch.tensor(2.0), Horizon())
    assert [float(x) for x in alone] == [float(got.next), 0, 0]
    assert float(crossing_loss(torch.tensor([[100.0, 0, 0]]))) == 0
