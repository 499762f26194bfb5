"""Hit rate, NDCG and MRR of one relevant item per target, with intervals over users.

Targets of one user are alike, so an interval that took them for independent would be too narrow: users are drawn anew, each with
all of his targets (bootstrap, Efron 1979, percentile interval).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

METRICS = ("hr10", "hr100", "ndcg10", "ndcg100", "mrr")
RESAMPLES = 1000
LEVEL = 0.95
_RESAMPLES_AT_ONCE = 100


@dataclass(frozen=True)
class Measured:
    """
    Attributes:
        targets, users: what it is of.
        value: metric -> mean over targets.
        low, high: metric -> ends of its interval.
    """

    targets: int
    users: int
    value: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]

    def as_dict(self) -> dict[str, object]:
        """For JSON: metric -> [value, low, high]."""
        rows = {name: [round(x[name], 5) for x in (self.value, self.low, self.high)] for name in self.value}
        return {"targets": self.targets, "users": self.users, **rows}


def per_target(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """`(n,)` ranks, 0 the best -> `(n, 5)` in the order of METRICS."""
    gain = 1 / np.log2(ranks + 2.0)
    return np.stack(
        [ranks < 10, ranks < 100, np.where(ranks < 10, gain, 0), np.where(ranks < 100, gain, 0), 1 / (ranks + 1.0)],
        axis=1,
    ).astype(np.float64)


def means(ranks: NDArray[np.int64]) -> dict[str, float]:
    """Metric -> mean over targets. `(n,)` ranks."""
    return dict(zip(METRICS, per_target(ranks).mean(axis=0).tolist(), strict=True))


def measure(ranks: NDArray[np.int64], users: NDArray[np.int64], seed: int = 0) -> Measured:
    """Metrics of targets `(n,)` of users `(n,)`, n at least 1."""
    values = per_target(ranks)
    low, high = interval(values, users, seed)
    named = (dict(zip(METRICS, column.tolist(), strict=True)) for column in (values.mean(axis=0), low, high))
    return Measured(len(ranks), len(np.unique(users)), *named)


def interval(
    values: NDArray[np.float64],
    users: NDArray[np.int64],
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both ends of the interval of the means of `(n, k)` values, over users `(n,)`. `(k,)` each."""
    _, user = np.unique(users, return_inverse=True)
    count = np.bincount(user)
    sums = np.stack([np.bincount(user, weights=column) for column in values.T], axis=1)  # (u, k)
    means = []
    for drawn in _draws(len(count), resamples, seed):  # (r, u)
        means.append((drawn @ sums) / (drawn @ count)[:, None])
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    return low, high


@lru_cache(maxsize=4)
def _draws(users: int, resamples: int, seed: int) -> tuple[NDArray[np.float32], ...]:
    """How often each user is drawn, `(r, users)`, some resamples at a time. The same users are asked about again and again."""
    rng, share = np.random.default_rng(seed), np.full(users, 1 / users)
    sizes = [min(_RESAMPLES_AT_ONCE, resamples - at) for at in range(0, resamples, _RESAMPLES_AT_ONCE)]
    return tuple(rng.multinomial(users, share, size).astype(np.float32) for size in sizes)
