from __future__ import annotations

import numpy as np
import pytest
import torch

from encoder.features import item_rows, item_seeds
from encoder.model import PinFM
from encoder.validation import Validator
from encoder.weights import random_weights
from encoder.windows import histories
from schemas.vocabulary import Vocabulary
from tests.encoder.trainings import SHAPE, circle_log


@torch.no_grad()
def test_validation_ranks_as_told() -> None:
    """Against the same, event by event."""
    log = circle_log(users=7, events=20)
    rng = np.random.default_rng(3)
    log.records["item_id"] = rng.integers(0, 30, len(log))
    model = PinFM(SHAPE, Vocabulary())
    model.load_weights(random_weights(SHAPE, Vocabulary(), seed=2))
    seeds, positive, first = item_seeds(0), np.arange(7) != 4, 70
    got = Validator(histories(log), first, seeds, positive, SHAPE.context).measure(model.eval())
    ids = np.unique(log.records["item_id"])
    items = model.item_embeddings(torch.from_numpy(item_rows(ids, seeds, SHAPE.rows)))
    vectors = model.item_vectors(items)
    hits = []
    for user in range(7):
        at = np.flatnonzero(log.user_index == user)
        index = np.searchsorted(ids, log.records["item_id"][at])
        codes = torch.from_numpy(log.records["action"][at].astype(np.int64))[None]
        for i in range(1, len(at)):
            if at[i] < first or log.records["action"][at[i]] == 4:
                continue
            gaps = torch.full((1, i), 2)  # the log's events of a user are a second apart
            gaps[0, 0] = 0
            surfaces = torch.zeros(1, i, dtype=torch.long)
            tokens = model.event_tokens(items[index[:i]][None], codes[:, :i], surfaces, gaps)
            scores = (vectors @ model.encode(tokens)[0][0, -1]).numpy()
            above = [j for j in range(len(ids)) if scores[j] > scores[index[i]] and j not in set(index[:i].tolist())]
            hits.append(len(above) < 10)
    assert got.targets == len(hits)
    assert got.hr10 == pytest.approx(np.mean(hits))
