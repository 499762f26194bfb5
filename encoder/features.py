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

from encoder.tables import decode_rows, flat_rows
from schemas.bundle import GAP_BUCKETS, SUB_TABLES
from schemas.sequence import Records

#: In place of the time of the event before, where there is none: the first event of a window.
NO_EVENT_MS = -1

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


def gap_buckets(timestamp_ms: NDArray[np.int64], previous_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """How long after the event before it an event came, as a row of the table of gaps.

    Row 0: no event before it (NO_EVENT_MS); 1: less than a second; then a row for each doubling: 1 s, 2 to 3 s, 4 to 7 s ... The
    last row is for everything longer. What a slot holds then depends on the events up to it alone, so slots stay valid under
    append.

    Args:
        timestamp_ms, previous_ms: same shape, Unix ms.

    Returns:
        The same shape, i64 in [0, GAP_BUCKETS).
    """
    seconds = np.maximum(timestamp_ms - previous_ms, 0) // 1000
    # The exponent of x in [2^(e - 1), 2^e) is e: exact, other than a logarithm.
    buckets = np.minimum(np.frexp(seconds.astype(np.float64))[1] + 1, GAP_BUCKETS - 1)
    return np.where(previous_ms < 0, 0, buckets).astype(np.int64)


def previous_in_window(timestamp_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """The time of the event before each, of whole windows. `(..., T)` i64 -> `(..., T)` i64."""
    previous = np.roll(timestamp_ms, 1, axis=-1)
    previous[..., :1] = NO_EVENT_MS
    return previous


class Features:
    """Looks up tokens: what goes into the graphs.

    The item table stays as it is given, in its code and mapped if it is mapped: only the rows that are used are read and decoded.
    """

    def __init__(
        self,
        items: NDArray[Any],
        actions: NDArray[np.float16],
        surfaces: NDArray[np.float16],
        gaps: NDArray[np.float16],
        candidate: NDArray[np.float16],
        seeds: Sequence[int],
    ) -> None:
        """
        Args:
            items: `(8, R, d / 8)` f16, or f32, or `(8, R)` rows in int4 (encoder.tables.encode_table).
            actions: `(A, d)` f16; row 0 is for every unknown code.
            surfaces: `(S, d)` f16; likewise.
            gaps: `(GAP_BUCKETS, d)` f16.
            candidate: `(d,)` f16, in place of the action of a candidate.
            seeds: 8 seeds of the item hash.
        """
        self.d_model, self._rows = len(candidate), items.shape[1]
        self._seeds = tuple(seeds)
        self._items = flat_rows(np.asarray(items))
        self._first_row = np.arange(SUB_TABLES, dtype=np.int64)[:, None] * self._rows  # (8, 1)
        self._actions = np.asarray(actions, np.float32)
        self._surfaces = np.asarray(surfaces, np.float32)
        self._gaps = np.asarray(gaps, np.float32)
        self._candidate = np.asarray(candidate, np.float32)

    def items(self, item_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Item embeddings. `(n,)` i64 -> `(n, d)` f32."""
        flat = item_rows(item_ids, self._seeds, self._rows) + self._first_row  # (8, n)
        pieces = decode_rows(self._items.take(flat.T, axis=0), self.d_model // SUB_TABLES)  # (n, 8, d / 8)
        return pieces.reshape(len(item_ids), self.d_model)

    def tokens(self, records: Records, previous_ms: NDArray[np.int64]) -> NDArray[np.float32]:
        """Tokens of events: item + action + surface + time gap.

        A code that the model does not know counts as code 0, `other`.

        Args:
            records: `(n,)` of RECORD.
            previous_ms: `(n,)` i64, the time of the event before each in its user's window; NO_EVENT_MS where there is none.

        Returns:
            `(n, d)` f32.
        """
        tokens = self.items(records["item_id"])
        tokens += self._actions.take(_known(records["action"], len(self._actions)), axis=0)
        tokens += self._surfaces.take(_known(records["surface"], len(self._surfaces)), axis=0)
        tokens += self._gaps.take(gap_buckets(records["timestamp_ms"], previous_ms), axis=0)
        return tokens

    def window_tokens(self, windows: Records) -> NDArray[np.float32]:
        """Tokens of whole windows: nothing precedes their first events. `(..., T)` of RECORD -> `(..., T, d)` f32."""
        previous_ms = previous_in_window(windows["timestamp_ms"])
        return self.tokens(windows.reshape(-1), previous_ms.reshape(-1)).reshape(*windows.shape, self.d_model)

    def candidates(self, item_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Tokens of candidates: item + the candidate row. `(n,)` i64 -> `(n, d)` f32."""
        return self.items(item_ids) + self._candidate


def _known(codes: NDArray[Any], count: int) -> NDArray[Any]:
    return np.where(codes < count, codes, 0)
