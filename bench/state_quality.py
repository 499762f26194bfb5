"""What a code of keys and values costs in hit rate: the same model and targets, with attention seeing what the code leaves.

One causal pass with keys and values as a state keeps them gives the embeddings that event after event would give. KIVI's groups
are an exception: a key's group includes later tokens, so its figures are those of a pass that knows them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.state_codes import CODES
from encoder.checkpoint import Checkpoint
from encoder.evaluation.metrics import interval, means
from encoder.evaluation.protocol import Split
from encoder.evaluation.ranking import Rows, Scorer, rank_all
from encoder.evaluation.states import Embedder
from encoder.model import PinFM, Stored

#: In full precision.
FULL = "fp32"
_HITS = 10


def measure_quality(split: Split, checkpoint: Checkpoint, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Rank the targets by the embeddings of each code.

    Returns:
        Code, and FULL -> metrics; of codes also `hr10_loss`, relative to FULL's, and both ends of its 95% interval over users,
        and how many hits and misses of FULL's became the other.
    """
    notes = checkpoint.notes
    model = PinFM(notes.shape, notes.vocabulary)
    model.load_weights(checkpoint.weights)
    stored: dict[str, Stored | None] = {FULL: None, **{code.name: code.stored for code in CODES}}
    scorers = {name: _scorer(Embedder(model, split.data, notes.item_seeds, how), split) for name, how in stored.items()}
    ranks = {name: r.unseen for name, r in rank_all(split.data, split.targets, scorers, seed).items()}
    found: dict[str, dict[str, Any]] = {name: dict(means(of)) for name, of in ranks.items()}
    hits = ranks[FULL] < _HITS
    for code in CODES:
        found[code.name] |= _lost(hits, ranks[code.name] < _HITS, split.targets.user, seed)
    return found


def _lost(hits: NDArray[np.bool_], now: NDArray[np.bool_], users: NDArray[np.int64], seed: int) -> dict[str, Any]:
    if not hits.any():
        return {"hr10_loss": None, "hr10_loss_interval": None, "changed": int((hits != now).sum())}
    share = hits.mean()
    low, high = interval((hits.astype(np.float64) - now)[:, None] / share, users, seed)
    return {
        "hr10_loss": float((share - now.mean()) / share),
        "hr10_loss_interval": [float(low[0]), float(high[0])],
        "changed": int((hits != now).sum()),
    }


def _scorer(embedder: Embedder, split: Split) -> Scorer:
    embeddings = embedder.embeddings(split.targets.start, split.targets.before)  # (n, d)
    vectors = embedder.vectors

    def score(rows: Rows) -> NDArray[np.floating[Any]]:
        scores: NDArray[np.float32] = (embeddings[torch.from_numpy(rows)] @ vectors.T).numpy()
        return scores

    return score
