"""How well a ranker ranks requests that come after T.

A request is an event after T with its item and sampled candidates; its state is what its user's window held before it.

    auc_<task>        chance that an item that got the action scores above another candidate of any request
    auc_<task>_shown  the same among the log's own items alone: those with other actions
    hr3_<task>        share of the requests whose item got the action in which it is among the first three
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from encoder.evaluation.protocol import Split
from ranker.head.model import Ranker
from ranker.head.places import Ints
from ranker.head.requests import Requests
from schemas.errors import LogError


@dataclass(frozen=True)
class Measured:
    """Requests that are measured.

    Attributes:
        events: `(r,)` places of their events among the events of the histories, ascending.
        sampled: `(r, C - 1)` sampled candidates.
    """

    events: Ints
    sampled: Ints


def choose(
    split: Split, requests: Requests, count: int, sampled: int, seed: int, among: NDArray[np.bool_] | None = None
) -> Measured:
    """Draw requests from the events after T.

    Args:
        among: `(m,)` items: only events of these, against sampled candidates of these.

    Raises:
        LogError: there are none.
    """
    rng = np.random.default_rng(seed)
    items = split.data.items
    # Other items than the known have no embedding that anything trained; new ones are measured by themselves.
    asked = split.item_counts[items] > 0 if among is None else among[items]
    events = np.flatnonzero(~split.trained & asked)
    if not len(events):
        raise LogError("no event after T can be ranked: the log ends there, or all of its later items are new")
    events = np.sort(rng.choice(events, min(count, len(events)), replace=False))
    pool = None if among is None else np.flatnonzero(among)
    return Measured(events, requests.sample(split.data.owners[events], sampled, rng, pool))


@torch.no_grad()
def scores(ranker: Ranker, requests: Requests, measured: Measured, states: bool = True) -> NDArray[np.float32]:
    """Logits `(r, C, J)`, each request's own item first.

    Args:
        states: False: of a ranker that reads none, as when Redis is away.
    """
    ranker.eval()
    device = next(ranker.parameters()).device
    found: NDArray[np.float32] | None = None
    for request, batch in requests.measured(measured.events, measured.sampled):
        if not states:
            batch = batch.without_states()
        logits, _ = ranker(batch.to(device))
        logits = logits.unflatten(1, batch.candidates.shape[1:]).float().cpu().numpy()  # (B, P, C, J)
        if found is None:
            found = np.empty((len(measured.events), *logits.shape[2:]), np.float32)
        found[request[request >= 0]] = logits[request >= 0]
    assert found is not None
    return found


def figures(
    split: Split, measured: Measured, logits: NDArray[np.float32], tasks: Sequence[tuple[str, int]]
) -> dict[str, float]:
    """
    Args:
        logits: `(r, C, J)`.
        tasks: J names and action codes.

    Returns:
        As the module says; what has no request to measure is left out.
    """
    actions = split.data.actions[measured.events]
    values: dict[str, float] = {}
    for j, (name, code) in enumerate(tasks):
        got = actions == code
        if not got.any():
            continue
        truth = np.zeros(logits.shape[:2], bool)
        truth[:, 0] = got
        values[f"auc_{name}"] = auc(logits[..., j].ravel(), truth.ravel())
        if not got.all():
            values[f"auc_{name}_shown"] = auc(logits[:, 0, j], got)
        own, others = logits[got, :1, j], logits[got, 1:, j]
        rank = (others > own).sum(1) + 0.5 * (others == own).sum(1)
        values[f"hr3_{name}"] = float((rank < 3).mean())
    return values


def auc(scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """Area under the ROC curve; ties count half. `(n,)` each, with both kinds among `truth`."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # 1 the lowest
    positives = int(truth.sum())
    above = ranks[truth].sum() - positives * (positives + 1) / 2
    return float(above / (positives * (len(truth) - positives)))
