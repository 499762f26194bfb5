"""DCAT, the deduplicated cross-attention of PinFM: candidates meet their user's cached state instead of being encoded with it.

The context was encoded when its events happened, once. A ranking request crosses any number of candidates with it: each
candidate attends to the keys and values of its user's past and to itself, at the position after the past.

Letters: U distinct users of a run, C candidates, P past slots, d model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoder.bundle import Bundle
from encoder.features import Features
from encoder.past import gather_past, parts_of
from encoder.runtime import Runtime, RuntimeConfig, Scores
from ranker.rows import Row
from ranker.runs import Line, runs
from schemas.errors import ConfigError, StateError
from schemas.state import State, StateLayout

__all__ = ["Dcat", "Request", "Scores"]


class Request(NamedTuple):
    """One user's candidates to score.

    Attributes:
        user: a row of a `StateReader`, or a state; None, or a row that is not usable: a cold user, whose candidates see
            themselves alone.
        candidates: `(C,)` i64 item ids, any ids: items that no training saw have embeddings too. String ids are hashed first
            (schemas.event.hash_item_id).
    """

    user: Row | State | None
    candidates: NDArray[np.int64]


class Dcat:
    """Scores requests with one model. One caller at a time, as its runtime."""

    def __init__(self, runtime: Runtime, features: Features, layout: StateLayout) -> None:
        """
        Args:
            runtime, features, layout: of one bundle. The runtime needs the graph `cross` alone.
        """
        self.layout = layout
        self._runtime = runtime
        self._features = features
        self._nobody = np.empty(0, layout.slot)

    @classmethod
    def of(cls, bundle: Bundle, config: RuntimeConfig | None = None) -> Dcat:
        """With a runtime of its own for the bundle's crossing.

        Raises:
            ProviderError, PrerequisiteError, BundleError: as `Runtime`.
        """
        config = config or RuntimeConfig(graphs=("cross",))
        return cls(Runtime(bundle, config), bundle.features, bundle.layout)

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """Cross every request's candidates with its user's state.

        Users that come in several requests (the same write of the same state), and all cold users together, are laid into the
        graph once. Requests of different sizes are grouped so that padding costs little.

        Returns:
            For each request, of its candidates: `hidden` `(C, d)` f32, unit length; `score` `(C,)` f32, the logit of an
            engagement.

        Raises:
            StateError: a state is of another model.
            ConfigError: candidates are no `(C,)` integers; or a row was read with `embedding_only`.
        """
        requests = [Request(user, checked_candidates(candidates)) for user, candidates in requests]
        states, members = self._distinct(requests)
        order = [i for group in members for i in group]  # users' requests side by side
        candidates = np.concatenate([requests[i].candidates for i in order]) if order else np.empty(0, np.int64)
        hidden = np.empty((len(candidates), self.layout.shape.d_model), np.float32)
        score = np.empty(len(candidates), np.float32)
        if len(candidates):
            tokens = self._features.candidates(candidates)  # (n, d)
            counts = [sum(len(requests[i].candidates) for i in group) for group in members]
            for run in runs(counts, [len(slots) for slots in states]):
                self._cross(run, states, tokens, hidden, score)
        return _dealt(requests, order, hidden, score)

    def _distinct(self, requests: Sequence[Request]) -> tuple[list[NDArray[np.void]], list[list[int]]]:
        """The distinct users' slots, and which requests are theirs."""
        states: list[NDArray[np.void]] = []
        members: list[list[int]] = []
        index: dict[bytes, int] = {}
        for i, request in enumerate(requests):
            state = checked_state(request.user, self.layout)
            # A revision is random, new with each write: equal ones are the same slots.
            key = b"" if state is None else state.header.revision
            at = index.setdefault(key, len(states))
            if at == len(states):
                states.append(self._nobody if state is None else state.slots)
                members.append([])
            members[at].append(i)
        return states, members

    def _cross(
        self,
        run: list[Line],
        states: list[NDArray[np.void]],
        tokens: NDArray[np.float32],
        hidden: NDArray[np.float32],
        score: NDArray[np.float32],
    ) -> None:
        padded = np.zeros((len(run), max(line.candidates for line in run), tokens.shape[1]), np.float32)  # (U, C, d)
        for row, line in zip(padded, run, strict=True):
            row[: line.candidates] = tokens[line.start : line.stop]
        longest = max(1, max(line.length for line in run))
        past = gather_past([parts_of(states[line.user]) for line in run], longest, self.layout)
        crossed = self._runtime.cross(padded, *past)
        for i, line in enumerate(run):
            hidden[line.start : line.stop] = crossed.hidden[i, : line.candidates]
            score[line.start : line.stop] = crossed.score[i, : line.candidates]


def _dealt(
    requests: Sequence[Request], order: list[int], hidden: NDArray[np.float32], score: NDArray[np.float32]
) -> list[Scores]:
    """Each request's part of what was computed in `order`."""
    dealt: dict[int, Scores] = {}
    start = 0
    for i in order:
        stop = start + len(requests[i].candidates)
        dealt[i] = Scores(hidden[start:stop], score[start:stop])
        start = stop
    return [dealt[i] for i in range(len(requests))]


def checked_state(user: Row | State | None, layout: StateLayout) -> State | None:
    """The state to cross; None for a user without one.

    Raises:
        StateError: it is of another model.
        ConfigError: the row was read with `embedding_only`.
    """
    if isinstance(user, Row):
        if user.usable and user.state is None:
            raise ConfigError(
                f"the row of {user.user!r} was read with `embedding_only`: read whole states to cross candidates with them"
            )
        user = user.state
    if user is not None and user.header.model_id != layout.model_id:
        raise StateError(
            f"a state of model {user.header.model_id} cannot be crossed by model {layout.model_id}: "
            f"load the bundle of {user.header.model_id}"
        )
    return user


def checked_candidates(candidates: NDArray[np.int64]) -> NDArray[np.int64]:
    """
    Raises:
        ConfigError: they are no `(C,)` integers.
    """
    array = np.asarray(candidates)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise ConfigError(
            f"candidates are {array.dtype} {array.shape}, expected (C,) integers: hash string ids with schemas.event.hash_item_id"
        )
    return array.astype(np.int64, copy=False)
