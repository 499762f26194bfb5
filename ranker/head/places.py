"""Where ids stand in a column that ascends. No torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def places_in(ascending: Ints, ids: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """
    Args:
        ascending: `(n,)`, at least one.
        ids: any shape.

    Returns:
        The place of each id in the column, and whether it is there; if not, the place is another's.
    """
    places = np.minimum(np.searchsorted(ascending, ids), len(ascending) - 1)
    return places, ascending[places] == ids
