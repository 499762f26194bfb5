"""Tokens of events and candidates: the host's half of the model, where the embedding tables live (PinFM keeps them off the GPU).

An item has no row of its own. Eight hashes of its id choose one row in each of eight sub-tables, and the eight pieces side by
side are its embedding: any item id has one, also an id that no training ever saw, and the tables stay small.

Letters: n events, d model width, A actions, S surfaces, R rows of a sub-table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.bundle import SUB_TABLES
from schemas.sequence import Records

#: Item tables up to this size are kept in memory as f32, where a look-up is three times faster. Larger ones stay mapped, as f16.
RESIDENT_BYTES = 64 << 20

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014), one step from state `x`. Any shape, u64 -> u64."""
    z = x + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


def item_seeds(seed: int) -> tuple[int, ...]:
    """The eight 64-bit seeds of a model's item hashes, from one seed."""
    start = np.arange(SUB_TABLES, dtype=np.uint64) + np.uint64(SUB_TABLES * seed)
    return tuple(int(s) for s in splitmix64(start))


def item_rows(item_ids: NDArray[np.int64], seeds: Sequence[int], rows: int) -> NDArray[np.int64]:
    """The row of each item in each sub-table: `splitmix64(item_id ^ seed) % rows`. This is the one implementation of the hash.

    Args:
        item_ids: `(n,)` i64.
        seeds: 8 seeds, 64 bits each.
        rows: R.

    Returns:
        `(8, n)` i64, in [0, R).
    """
    ids = np.ascontiguousarray(item_ids, np.int64).view(np.uint64)
    mixed = splitmix64(ids[None, :] ^ np.array(seeds, np.uint64)[:, None])
    return (mixed % np.uint64(rows)).astype(np.int64)


class Features:
    """Looks up tokens: what goes into the graphs.

    A large item table may be memory mapped: only the rows that are used are ever read.
    """

    def __init__(
        self,
        items: NDArray[np.float16],
        actions: NDArray[np.float16],
        surfaces: NDArray[np.float16],
        candidate: NDArray[np.float16],
        seeds: Sequence[int],
    ) -> None:
        """
        Args:
            items: `(8, R, d / 8)` f16.
            actions: `(A, d)` f16; row 0 is for every unknown code.
            surfaces: `(S, d)` f16; likewise.
            candidate: `(d,)` f16, in place of the action of a candidate.
            seeds: 8 seeds of the item hash.
        """
        tables, self._rows, width = items.shape
        self.d_model = tables * width
        self._seeds = tuple(seeds)
        flat = np.asarray(items).reshape(tables * self._rows, width)
        self._items: NDArray[np.float16 | np.float32] = (
            flat.astype(np.float32) if flat.nbytes <= RESIDENT_BYTES else flat
        )
        self._first_row = np.arange(tables, dtype=np.int64)[:, None] * self._rows  # (8, 1)
        self._actions = np.asarray(actions, np.float32)
        self._surfaces = np.asarray(surfaces, np.float32)
        self._candidate = np.asarray(candidate, np.float32)

    def items(self, item_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Item embeddings. `(n,)` i64 -> `(n, d)` f32."""
        flat = item_rows(item_ids, self._seeds, self._rows) + self._first_row  # (8, n)
        pieces = self._items.take(flat.T, axis=0)  # (n, 8, d / 8)
        tokens: NDArray[np.float32] = pieces.reshape(len(item_ids), self.d_model).astype(np.float32, copy=False)
        return tokens

    def tokens(self, records: Records) -> NDArray[np.float32]:
        """Tokens of events: item + action + surface. `(n,)` of RECORD -> `(n, d)` f32.

        A code that the model does not know counts as code 0, `other`.
        """
        tokens = self.items(records["item_id"])
        tokens += self._actions.take(_known(records["action"], len(self._actions)), axis=0)
        tokens += self._surfaces.take(_known(records["surface"], len(self._surfaces)), axis=0)
        return tokens

    def candidates(self, item_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Tokens of candidates: item + the candidate row. `(n,)` i64 -> `(n, d)` f32."""
        return self.items(item_ids) + self._candidate


def _known(codes: NDArray[Any], count: int) -> NDArray[Any]:
    return np.where(codes < count, codes, 0)
