"""Scoring candidates three ways: one sequence each, DCAT that encodes the context in the request, DCAT from cached states.

All with the same graphs on one thread of the CPU, in turns. The cached way reads its states from Redis, so it does all that a
ranking request does; the other two get their users' sequences for nothing.

Letters: U users of a request, C candidates of each, T slots of a user's context, d model width.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.rank_states import Ranked
from bench.rounds import in_turns, percentiles, way
from encoder.refresh import CPU_LIMITS
from ranker.dcat import Dcat, Request
from ranker.reader import StateReader
from schemas.errors import MismatchError
from schemas.sequence import Records

#: Hidden states have unit length. What the ways may differ by: the naive one lets a candidate attend to its own rounded key.
_MAX_DIFFERENCE, _MIN_COSINE = 1e-3, 0.99


class Load(NamedTuple):
    """One ranking request."""

    users: int
    candidates: int

    def __str__(self) -> str:
        return f"{self.users}x{self.candidates}"


class Contest:
    """One model's requests."""

    def __init__(self, ranked: Ranked, naive_s: float) -> None:
        """
        Args:
            naive_s: a request of the naive way is cut off after so long, and the rest of its candidates reckoned.
        """
        self._ranked, self._naive_s = ranked, naive_s
        self._runtime, self._features = ranked.runtime, ranked.bundle.features
        self._dcat = Dcat(ranked.runtime, ranked.bundle.features, ranked.bundle.layout)
        self._reader = StateReader(ranked.redis_url, ranked.bundle, ranked.names, deadline_ms=60_000)
        d = ranked.bundle.shape.d_model
        self._batch = max(1, CPU_LIMITS.token_bytes // (4 * d * ranked.bundle.shape.context))

    def measure(self, load: Load, seconds: float) -> dict[str, Any]:
        """Milliseconds of each way.

        Raises:
            MismatchError: the ways do not compute the same.
        """
        items = np.random.default_rng(load.candidates).integers(1, 1 << 40, load)  # (U, C)
        users, windows = self._ranked.users[: load.users], np.stack(self._ranked.windows[: load.users])  # (U, T)
        self._check(items, users, windows)
        taken = in_turns(
            {
                "request": way(lambda: self._in_request(items, windows)),
                "cached": way(lambda: self._cached(items, users)),
                "cached, read before": way(self._read_before(items, users)),
            },
            seconds,
        )
        naive_ms, done = self._naive_ms(items, windows)
        return {
            "naive": {"ms": naive_ms, "candidates_measured": done},
            **{name: percentiles(ms) for name, ms in taken.items()},
            "cached_vs_request": float(np.median(taken["request"]) / np.median(taken["cached"])),
            "cached_vs_naive": float(naive_ms / np.median(taken["cached"])),
        }

    def _cached(self, items: NDArray[np.int64], users: list[str]) -> NDArray[np.float32]:
        rows = self._reader.read(users)
        return np.stack([s.hidden for s in self._dcat.score(list(map(Request, rows, items)))])

    def _read_before(self, items: NDArray[np.int64], users: list[str]) -> Any:
        requests = list(map(Request, self._reader.read(users), items))
        return lambda: self._dcat.score(requests)

    def _in_request(self, items: NDArray[np.int64], windows: NDArray[np.void]) -> NDArray[np.float32]:
        n_users, length = windows.shape
        slots = self._runtime.encode(self._features.window_tokens(windows), np.full(n_users, length - 1))
        tokens = self._features.candidates(items.ravel()).reshape(*items.shape, -1)  # (U, C, d)
        return self._runtime.cross(tokens, slots.kv, slots.scales, np.full(n_users, length)).hidden

    def _naive(self, items: NDArray[np.int64], window: Records) -> NDArray[np.float32]:
        """Hidden states `(c, d)` of one user's candidates, each behind a copy of all events."""
        context = self._features.window_tokens(window[None])  # (1, T, d)
        candidates = self._features.candidates(items)[:, None]  # (c, 1, d)
        tokens = np.concatenate([np.repeat(context, len(items), 0), candidates], axis=1)  # (c, T + 1, d)
        return self._runtime.encode(tokens, np.full(len(items), len(window))).embedding

    def _naive_ms(self, items: NDArray[np.int64], windows: NDArray[np.void]) -> tuple[float, int]:
        """Of the whole request, and how many of its candidates were run. They do not know of each other, so all cost the same."""
        began_s, done = time.perf_counter(), 0
        for user, first in np.ndindex(len(items), -(-items.shape[1] // self._batch)):
            batch = items[user, first * self._batch :][: self._batch]
            self._naive(batch, windows[user])
            done += len(batch)
            if time.perf_counter() - began_s > self._naive_s:
                break
        return 1e3 * (time.perf_counter() - began_s) * items.size / done, done

    def _check(self, items: NDArray[np.int64], users: list[str], windows: NDArray[np.void]) -> None:
        cached, request = self._cached(items, users), self._in_request(items, windows)
        off = float(np.abs(cached - request).max())
        cosine = float((self._naive(items[0, :2], windows[0]) * cached[0, :2]).sum(-1).min())
        if off > _MAX_DIFFERENCE or cosine < _MIN_COSINE:
            raise MismatchError(
                f"{items.shape[0]} users x {items.shape[1]} candidates: cached states give other scores than encoding in the "
                f"request (by {off:.2g}) or than encoding each candidate (cosine {cosine:.4f})"
            )
