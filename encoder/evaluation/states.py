"""The user embedding that a ranker reads after so many events of a user: through the window that is served, anchored as
encoder.plan anchors it when events come one by one.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from encoder.evaluation.ranking import ragged
from encoder.features import item_rows
from encoder.model import PinFM, Stored
from encoder.windows import Histories, Windows, cut
from schemas.bundle import ModelShape

_BATCH_TOKENS = 8192


def window_start(events: NDArray[np.int64], shape: ModelShape) -> NDArray[np.int64]:
    """Where the window of a user with so many events begins: it grows to `context`, and the event that finds it full anchors it
    anew at the newest `keep`. Any shape, i64.
    """
    step = shape.context + 1 - shape.keep
    rounds: NDArray[np.int64] = np.maximum(0, -(-(events - shape.context) // step))
    return rounds * step


class Embedder:
    """User embeddings and item vectors of one model, in full precision. Without gradients."""

    def __init__(self, model: PinFM, data: Histories, seeds: tuple[int, ...], stored: Stored | None = None) -> None:
        """
        Args:
            stored: let attention see what is left of keys and values in a state (encoder.model.PinFM.encode).
        """
        self._stored = stored
        self._model, self._data = model.eval(), data
        rows = torch.from_numpy(item_rows(data.item_ids, seeds, model.shape.rows))  # (8, m)
        with torch.no_grad():
            self._items = model.item_embeddings(rows)  # (m, d)
            #: `(m, d)`: what user embeddings are compared with.
            self.vectors: Tensor = model.item_vectors(self._items)

    @torch.no_grad()
    def embeddings(self, start: NDArray[np.int64], events: NDArray[np.int64]) -> Tensor:
        """User embeddings `(n, d)`.

        Args:
            start: `(n,)` i64, the place of the user's first event.
            events: `(n,)` i64, how many events the state has seen, at least 1.
        """
        shape = self._model.shape
        first = start + window_start(events, shape)
        begins, window = np.unique(first, return_inverse=True)
        ends = np.zeros(len(begins), np.int64)
        np.maximum.at(ends, window, start + events)
        slot = start + events - 1 - first
        result = torch.zeros(len(start), shape.d_model)
        positive = np.ones(1, bool)  # targets are not asked for
        by_length = np.argsort(ends - begins, kind="stable")
        requests = np.argsort(window, kind="stable")
        bounds = np.searchsorted(window[requests], np.arange(len(begins) + 1))
        at = 0
        while at < len(by_length):
            # As many windows as fit, though each is padded to the longest, the last.
            lengths = (ends - begins)[by_length[at:]]
            fitting = int(np.count_nonzero(lengths * np.arange(1, len(lengths) + 1) <= _BATCH_TOKENS))
            chosen = by_length[at : at + max(1, fitting)]
            at += len(chosen)
            batch = cut(self._data, np.stack([begins[chosen], ends[chosen]], axis=1), positive)
            columns = (torch.from_numpy(c) for c in (*self._known(batch), batch.gaps))
            items = functional.embedding(torch.from_numpy(batch.items), self._items)
            hidden, _ = self._model.encode(self._model.event_tokens(items, *columns), self._stored)  # (B, T, d)
            counts = bounds[chosen + 1] - bounds[chosen]
            row, place = ragged(counts)
            asked = requests[bounds[chosen][row] + place]
            result[torch.from_numpy(asked)] = hidden[torch.from_numpy(row), torch.from_numpy(slot[asked])]
        return result

    def _known(self, batch: Windows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Actions and surfaces; a code that the model does not know counts as code 0, as encoder.features has it."""
        vocabulary = self._model.vocabulary
        actions, surfaces = len(vocabulary.actions), len(vocabulary.surfaces)
        return np.where(batch.actions < actions, batch.actions, 0), np.where(
            batch.surfaces < surfaces, batch.surfaces, 0
        )
