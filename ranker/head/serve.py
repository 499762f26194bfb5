"""Scoring requests with a trained ranker: one call of one graph, from a user's state to probabilities. No torch.

Letters: C candidates, J tasks, k width of content.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.bundle import Bundle
from encoder.features import Features
from encoder.past import gather_past, parts_of
from encoder.providers import Opening, ProviderConfig, open_sessions
from ranker.dcat import checked_candidates, checked_state
from ranker.head.context import context_features
from ranker.head.saved import read_ranker
from ranker.rows import Row
from schemas.errors import BundleError, ConfigError
from schemas.state import State


class RankerModel:
    """One caller at a time.

    Attributes:
        tasks: J names, in the order of the probabilities.
        provider: the rung that it runs on.
    """

    def __init__(self, directory: Path | str, bundle: Bundle, config: ProviderConfig | None = None) -> None:
        """
        Args:
            directory: as `slipstream train-ranker` wrote it.
            bundle: of the PinFM that was trained with it.

        Raises:
            BundleError: the ranker is damaged, or of another model than the bundle's.
            ConfigError: TensorRT is asked for, which would build an engine for every number of candidates.
            ProviderError, PrerequisiteError: as encoder.providers.open_sessions.
        """
        config = config or ProviderConfig()
        if "tensorrt" in config.providers:
            raise ConfigError(
                "providers: a ranker's graph runs on cuda and cpu, tensorrt has no profile of its shapes yet"
            )
        notes, graph, self._catalogue = read_ranker(Path(directory))
        if notes.model_id != bundle.model_id:
            raise BundleError(
                f"{directory}: the ranker was trained with model {notes.model_id}, the bundle is {bundle.model_id}: load the "
                f"bundle of {notes.model_id}, or train a ranker for this one"
            )
        self.tasks = notes.tasks
        self._content_width = notes.content_width
        self._layout = bundle.layout
        self._features: Features = bundle.features
        self._nobody = np.empty(0, self._layout.slot)
        sessions, self.provider = open_sessions(lambda _: {"ranker": Opening(graph)}, config)
        self._session = sessions["ranker"]
        self._inputs = {given.name for given in self._session.get_inputs()}

    def score(
        self,
        user: Row | State | None,
        candidates: NDArray[np.int64],
        now_ms: int,
        content: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Score one request.

        Args:
            user: a row of a `StateReader`, or a state; None, or a row that is not usable: a user without a state.
            candidates: `(C,)` i64 item ids, any ids.
            now_ms: Unix ms of the request.
            content: `(C, k)` f32, zeros where there is none; None: none at all.

        Returns:
            `(C, J)` f32 probabilities.

        Raises:
            StateError: the state is of another model.
            ConfigError: candidates or content are not as said; or the row was read with `embedding_only`.
        """
        candidates = checked_candidates(candidates)
        state = checked_state(user, self._layout)
        content = self._checked_content(content, len(candidates))
        if not len(candidates):
            return np.empty((0, len(self.tasks)), np.float32)
        slots = self._nobody if state is None else state.slots
        kv, scales, length = gather_past([parts_of(slots)], max(1, len(slots)), self._layout)
        embedding = np.zeros(self._layout.shape.d_model) if state is None else state.header.embedding
        popularity, ages_ms = self._catalogue.look_up(candidates, now_ms)
        features = context_features(popularity, ages_ms, np.array(now_ms), np.array(len(slots)))
        feed: dict[str, NDArray[Any]] = {
            "items": self._features.items(candidates)[None],
            "features": features[None],
            "past_kv": kv,
            "past_scales": scales,
            "past_length": length,
            "embedding": np.asarray(embedding, np.float32)[None],
            "content": content[None],
        }
        given = {name: value for name, value in feed.items() if name in self._inputs}
        probabilities: NDArray[np.float32] = self._session.run(["probabilities"], given)[0][0]
        return probabilities

    def _checked_content(self, content: NDArray[np.float32] | None, count: int) -> NDArray[np.float32]:
        if content is None:
            return np.zeros((count, self._content_width), np.float32)
        if content.shape != (count, self._content_width) or not np.isfinite(content).all():
            raise ConfigError(
                f"content is {content.dtype} {content.shape}, expected finite numbers ({count}, {self._content_width}): a row "
                "for each candidate, of the width that the ranker was trained with"
            )
        return content.astype(np.float32, copy=False)
