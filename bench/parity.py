"""How far what one runtime makes is from what another makes of the same tokens."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoder.oracle import ACROSS_PROVIDERS, Tolerance, steps_apart
from encoder.runtime import Runtime

#: Users whose states are compared; they grow by appends of these lengths.
_COMPARED, _GROWTH = 32, (1, 1, 3, 7, 20)


class Parity(NamedTuple):
    """States that a provider made, by encoding and several appends, against the CPU's from-scratch encoding of the same tokens.

    Attributes:
        max_steps: the furthest that any number of a slot is off, in steps of its int8 code.
        slot_mean_steps: the furthest that a slot is off on average over its numbers.
        slot_mean_steps_p99: what that is for all slots but one in a hundred.
        min_cosine: of the user embeddings.
        users_beyond: how many of the users' states encoder.oracle would not accept as the CPU's own,
        users_wrong: and how many not as another provider's either.
        min_cosine_hidden, max_score: of crossed candidates, and how far their logits are apart.
    """

    max_steps: float
    slot_mean_steps: float
    slot_mean_steps_p99: float
    min_cosine: float
    users_beyond: int
    users_wrong: int
    min_cosine_hidden: float
    max_score: float


def compare(runtime: Runtime, reference: Runtime) -> Parity:
    """States and crossed candidates of one runtime beside another's."""
    shape = runtime.shape
    rng = np.random.default_rng(1)
    n = _COMPARED
    first = shape.context - sum(_GROWTH)
    tokens = rng.standard_normal((n, shape.context, shape.d_model)).astype(np.float32)
    grown = runtime.encode(tokens[:, :first], np.full(n, first - 1))
    kv, scales, embedding = grown
    at = first
    for count in _GROWTH:
        new = runtime.append(tokens[:, at : at + count], kv, scales, np.full(n, at), np.full(n, count - 1))
        kv, scales = np.concatenate([kv, new.kv], axis=1), np.concatenate([scales, new.scales], axis=1)
        embedding, at = new.embedding, at + count
    fresh = reference.encode(tokens, np.full(n, shape.context - 1))
    steps = steps_apart(kv, scales, fresh.kv, fresh.scales)  # (B, T, 2, L, G, D)
    steps = steps.reshape(*steps.shape[:2], -1)
    worst = steps.max(axis=-1)
    mean = steps.mean(axis=-1)
    cosine = _cosine(embedding, fresh.embedding)
    beyond, wrong = (
        (worst > of.steps).any(axis=1) | (mean > of.slot_mean_steps).any(axis=1) | (cosine < of.cosine)
        for of in (Tolerance(), ACROSS_PROVIDERS)
    )
    candidates = rng.standard_normal((n, 50, shape.d_model)).astype(np.float32)
    lengths = rng.integers(0, shape.context + 1, n)
    got, wanted = (of.cross(candidates, fresh.kv, fresh.scales, lengths) for of in (runtime, reference))
    return Parity(
        float(worst.max()),
        float(mean.max()),
        float(np.quantile(mean, 0.99)),
        float(cosine.min()),
        int(beyond.sum()),
        int(wrong.sum()),
        float(_cosine(got.hidden, wanted.hidden).min()),
        float(np.abs(got.score - wanted.score).max()),
    )


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    product = np.einsum("...d,...d->...", a.astype(np.float64), b.astype(np.float64))
    cosine: NDArray[np.float64] = product / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    return cosine
