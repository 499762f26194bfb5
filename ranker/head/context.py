"""Context features of candidates: what a ranker knows without a state. The same code when training and when serving; no torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: The columns, in this order.
NAMES = ("log_popularity", "log_age_hours", "hour_sin", "hour_cos", "log_history")

_HOUR_MS = 3600 * 1000
#: Logarithms are divided by it, so that each column is about 0 to 1.
_SCALE = 10.0


def context_features(
    popularity: NDArray[np.int64], ages_ms: NDArray[np.int64], now_ms: NDArray[np.int64], history: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Features of candidates. All arguments broadcast to one shape `(...)`.

    Args:
        popularity: events of the item that the ranker knows of.
        ages_ms: time since the item's first one; 0 for a new item.
        now_ms: Unix ms of the request.
        history: events in the user's state, 0 without one.

    Returns:
        `(..., 5)` f32, columns as NAMES.
    """
    angle = (now_ms % (24 * _HOUR_MS)) * (2 * np.pi / (24 * _HOUR_MS))
    columns = (
        np.log1p(popularity) / _SCALE,
        np.log1p(ages_ms / _HOUR_MS) / _SCALE,
        np.sin(angle),
        np.cos(angle),
        np.log1p(history) / _SCALE,
    )
    return np.stack(np.broadcast_arrays(*columns), axis=-1).astype(np.float32)
