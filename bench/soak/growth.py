"""From looks at processes to what grew, and how sure that is. Pure.

A process is judged over what is left of its life when it has warmed up. That is cut into equal spans, of which the medians count:
a look at an unlucky moment says nothing, and neighbouring looks say the same twice. Through the medians goes the Theil-Sen line:
the median of the slopes of all pairs, with Sen's (1968) 95% interval from the variance of Kendall's S.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: A process must have lived for so many times the warm-up to be judged.
_LIVED = 1.5
_SPANS = 20
_MIN_SPANS = 4
_NORMAL_95 = 1.96


class Look(NamedTuple):
    """A process at one moment.

    Attributes:
        at_s: monotonic.
        kafka, redis: TCP connections to them.
    """

    at_s: float
    rss_mb: float
    fds: int
    threads: int
    kafka: int
    redis: int


class Slope(NamedTuple):
    """Per hour, with its 95% interval."""

    per_h: float
    low: float
    high: float


class Growth(NamedTuple):
    """Of one process, after its warm-up. Counts: the median of the last quarter less that of the first.

    Attributes:
        minutes: that it is judged by.
        rss_mb: median of the last quarter.
    """

    minutes: float
    rss_mb: float
    rss_mb_per_h: Slope
    fds: int
    threads: int
    connections: int


def theil_sen(x: NDArray[np.float64], y: NDArray[np.float64]) -> Slope:
    """The slope of `(n,)` points, n >= 2, in y per x; x all different."""
    n = len(x)
    i, j = np.triu_indices(n, 1)
    slopes = np.sort((y[j] - y[i]) / (x[j] - x[i]))  # (n (n - 1) / 2,)
    reach = _NORMAL_95 * np.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = max(0, int((len(slopes) - reach) / 2))
    high = min(len(slopes) - 1, int(np.ceil((len(slopes) + reach) / 2)))
    return Slope(float(np.median(slopes)), float(slopes[low]), float(slopes[high]))


def slope_per_h(at_s: NDArray[np.float64], values: NDArray[np.float64]) -> Slope | None:
    """Of the medians of equal spans; None if there are too few."""
    x, y = _medians(at_s, values)
    return theil_sen(x / 3600, y) if len(x) >= _MIN_SPANS else None


def risen(values: NDArray[np.float64]) -> float:
    """The median of the last quarter, less that of the first."""
    quarter = max(1, len(values) // 4)
    return float(np.median(values[-quarter:]) - np.median(values[:quarter]))


def growth(looks: Sequence[Look], warm_up_s: float) -> Growth | None:
    """None if it did not live long enough."""
    if not looks or looks[-1].at_s - looks[0].at_s < _LIVED * warm_up_s:
        return None
    at_s, rss_mb, fds, threads, kafka, redis = np.array(looks, np.float64).T
    warm = at_s >= at_s[0] + warm_up_s
    slope = slope_per_h(at_s[warm], rss_mb[warm])
    if slope is None:
        return None
    quarter = max(1, int(warm.sum()) // 4)
    return Growth(
        float(at_s[-1] - at_s[warm][0]) / 60,
        float(np.median(rss_mb[-quarter:])),
        slope,
        *(round(risen(counts[warm])) for counts in (fds, threads, kafka + redis)),
    )


def judged(looks: Mapping[str, Sequence[Look]], warm_up_s: float) -> dict[str, tuple[str, Growth]]:
    """By stage, the process that lived longest of those that lived long enough: `encode-0.01` is of `encode`."""
    found: dict[str, tuple[str, Growth]] = {}
    for process, its in looks.items():
        stage, grown = process.split("-")[0], growth(its, warm_up_s)
        if grown is not None and (stage not in found or grown.minutes > found[stage][1].minutes):
            found[stage] = process, grown
    return found


def _medians(at_s: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not len(at_s):
        return at_s, values
    spans = np.array_split(np.arange(len(at_s)), min(_SPANS, len(at_s)))
    return (
        np.array([np.median(at_s[span]) for span in spans]),
        np.array([np.median(values[span]) for span in spans]),
    )
