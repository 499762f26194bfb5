from __future__ import annotations

import numpy as np
import pytest
import torch

from encoder.evaluation import states
from encoder.evaluation.protocol import time_split
from encoder.evaluation.states import Embedder, window_start
from encoder.features import item_rows, item_seeds
from encoder.model import PinFM
from encoder.plan import plan
from encoder.weights import random_weights
from encoder.windows import cut
from schemas.bundle import ModelShape
from schemas.sequence import DEFAULT_CAPACITY, NO_RECORDS, RECORD
from schemas.vocabulary import Vocabulary
from tests.encoder.evaluation.logs import random_log

SHAPE = ModelShape(layers=2, d_model=32, heads=2, kv_heads=1, context=24, keep=18, rows=512)


@pytest.mark.parametrize(("context", "keep"), [(256, 192), (24, 18), (24, 23), (5, 1)])
def test_windows_begin_where_the_plan_begins_them(context: int, keep: int) -> None:
    """Event by event, through a sequence of the table's capacity."""
    shape = ModelShape(layers=1, d_model=16, heads=1, kv_heads=1, context=context, keep=keep)
    records = np.zeros(3 * context + 7, RECORD)
    records["timestamp_ms"] = np.arange(len(records))
    held, expected = NO_RECORDS, []
    for n in range(1, len(records) + 1):
        sequence = records[max(0, n - max(DEFAULT_CAPACITY, context)) : n]
        held = plan(held, sequence, context, keep).wanted
        expected.append(int(held["timestamp_ms"][0]))
    assert window_start(np.arange(1, len(records) + 1), shape).tolist() == expected


def _model(seed: int = 2) -> PinFM:
    model = PinFM(SHAPE, Vocabulary())
    model.load_weights(random_weights(SHAPE, Vocabulary(), seed=seed))
    return model.eval()


@pytest.mark.parametrize("batch_tokens", [1, 100, 8192])
@torch.no_grad()
def test_embeddings_against_one_window_at_a_time(monkeypatch: pytest.MonkeyPatch, batch_tokens: int) -> None:
    monkeypatch.setattr(states, "_BATCH_TOKENS", batch_tokens)
    log = random_log(users=3, events=200)
    split = time_split(log, int(log.records["timestamp_ms"][20]))
    data, model, seeds = split.data, _model(), item_seeds(0)
    start, events = split.targets.start, split.targets.before
    shuffled = np.random.default_rng(0).permutation(len(start))
    start, events = np.append(start[shuffled], start[:2]), np.append(events[shuffled], 1)[: len(start) + 1]
    events = np.append(events, 2)
    got = Embedder(model, data, seeds).embeddings(start, events)
    items = model.item_embeddings(torch.from_numpy(item_rows(data.item_ids, seeds, SHAPE.rows)))
    assert events.max() > SHAPE.context, "some windows were anchored anew"
    for row in range(len(start)):
        first = start[row] + int(window_start(events[row : row + 1], SHAPE)[0])
        window = cut(data, np.array([[first, start[row] + events[row]]]), np.ones(9, bool))
        columns = (torch.from_numpy(c) for c in (window.actions, window.surfaces, window.gaps))
        hidden, _ = model.encode(model.event_tokens(items[torch.from_numpy(window.items)], *columns))
        np.testing.assert_allclose(got[row], hidden[0, -1], atol=2e-5)


def test_what_the_vocabulary_lacks_counts_as_other() -> None:
    logs = [random_log(users=2, events=30) for _ in range(2)]
    logs[0].records["action"][:], logs[1].records["action"][:] = 60_000, 0
    embedded = []
    for log in logs:
        split = time_split(log, int(log.records["timestamp_ms"][10]))
        embedded.append(
            Embedder(_model(), split.data, item_seeds(0)).embeddings(split.targets.start, split.targets.before)
        )
    assert torch.equal(*embedded)
