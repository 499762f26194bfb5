"""Requests of a log against what can be worked out event by event."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from encoder.evaluation.protocol import Split, cutoff_ms, time_split
from encoder.features import item_rows, item_seeds
from encoder.finetune import DAY_MS
from ranker.head.batch import Batch
from ranker.head.config import RankerConfig
from ranker.head.context import NAMES, context_features
from ranker.head.evaluate import choose
from ranker.head.requests import Requests
from schemas.bundle import ModelShape
from schemas.errors import LogError
from schemas.vocabulary import Vocabulary
from tests.encoder.evaluation.logs import random_log

SHAPE = ModelShape(layers=1, d_model=32, heads=2, kv_heads=1, context=8, keep=5, rows=1 << 20)
SEEDS = item_seeds(3)
VIEW, SAVE = 1, 4
CONFIG = RankerConfig(max_steps=1, max_seconds=None, batch_tokens=24, positions=3, sampled=4, random_candidates=0.0)


@pytest.fixture(scope="module")
def split() -> Split:
    log = random_log(events=200, items=80)
    return time_split(log, cutoff_ms(log, 0.7))


def requests_of(split: Split, content: np.ndarray | None = None) -> Requests:
    return Requests(split, [SAVE, VIEW], Vocabulary(), SHAPE, SEEDS, content)


def item_at(split: Split, batch: Batch, places: torch.Tensor) -> np.ndarray:
    """Indices of the items that stand at places of a batch, found by their rows."""
    rows = item_rows(split.data.item_ids, SEEDS, SHAPE.rows)  # (8, m)
    of = {tuple(rows[:, i].tolist()): i for i in range(rows.shape[1])}
    return np.vectorize(lambda place: of[tuple(batch.rows[:, place].tolist())])(places.numpy())


def check(split: Split, batch: Batch, b: int, p: int, event: int) -> None:
    """Request (b, p) is what the event says."""
    data = split.data
    length, start = int(batch.lengths[b, p]), data.starts[data.owners[event]]
    before = np.arange(event - length, event)
    assert before.min(initial=event) >= start
    assert item_at(split, batch, batch.items[b, :length]).tolist() == data.items[before].tolist() if length else True
    assert batch.actions[b, :length].tolist() == data.actions[before].tolist()
    now = data.timestamps_ms[event]
    items = item_at(split, batch, batch.candidates[b, p])
    assert items[0] == data.items[event]
    engaged = set(data.items[data.owners == data.owners[event]].tolist())
    assert not engaged & set(items[1:].tolist())
    assert batch.labels[b, p, 0].tolist() == [data.actions[event] == SAVE, data.actions[event] == VIEW]
    assert not batch.labels[b, p, 1:].any()
    for c, item in enumerate(items.tolist()):
        times = data.timestamps_ms[split.trained & (data.items == item)]
        popularity = int((times < now).sum())
        age = max(now - times.min(), 0) if len(times) else 0
        assert int(batch.ages_ms[b, p, c]) == age
        want = context_features(*(np.array(x) for x in (popularity, age, now, length)))
        np.testing.assert_allclose(batch.features[b, p, c], want, rtol=1e-6)


def test_trained_requests_are_events_before_t(split: Split) -> None:
    data, seen = split.data, Counter[int]()
    batches = requests_of(split).training(CONFIG)
    for batch in (next(batches) for _ in range(25)):
        for b, p in np.argwhere(batch.real.numpy()).tolist():
            # The event is told by its item and what came before it.
            items = item_at(split, batch, batch.candidates[b, p])
            length = int(batch.lengths[b, p])
            held = item_at(split, batch, batch.items[b, :length]).tolist() if length else []
            events = [
                e
                for e in np.flatnonzero(split.trained & (data.items == items[0])).tolist()
                if data.items[max(e - length, 0) : e].tolist() == held
                and e - length >= data.starts[data.owners[e]]
                and (length or e == data.starts[data.owners[e]])
            ]
            assert events
            check(split, batch, b, p, events[0])
            seen[events[0]] += 1
    firsts = {int(start) for start in data.starts[:-1]}
    assert len(seen) > split.trained.sum() / 2
    assert firsts & set(seen), "users without a state are trained on, too"


def test_measured_is_each_request_once_through_the_served_window(split: Split) -> None:
    requests = requests_of(split)
    measured = choose(split, requests, 1000, 5, seed=1)
    assert not split.trained[measured.events].any()
    assert len(measured.events) == len(set(measured.events.tolist()))
    seen = Counter[int]()
    for request, batch in requests.measured(measured.events, measured.sampled):
        assert (request >= 0).tolist() == batch.real.tolist()
        for b, p in np.argwhere(request >= 0).tolist():
            index = int(request[b, p])
            check(split, batch, b, p, int(measured.events[index]))
            assert item_at(split, batch, batch.candidates[b, p])[1:].tolist() == measured.sampled[index].tolist()
            before = int(measured.events[index] - split.data.starts[split.data.owners[measured.events[index]]])
            length = int(batch.lengths[b, p])
            assert length == before if before <= SHAPE.context else SHAPE.keep - 1 <= length <= SHAPE.context
            seen[index] += 1
    assert seen == Counter(range(len(measured.events)))


def test_a_randomised_candidate_looks_like_another_and_keeps_its_label(split: Split) -> None:
    content = np.arange(len(split.data.item_ids), dtype=np.float32)[:, None]
    requests = requests_of(split, content)
    plain, mixed = (next(requests.training(replace(CONFIG, random_candidates=share))) for share in (0.0, 1.0))
    assert torch.equal(plain.labels, mixed.labels)
    assert torch.equal(plain.ages_ms, mixed.ages_ms)
    assert torch.equal(plain.features, mixed.features)
    assert torch.equal(plain.content, mixed.content)
    true, shown = item_at(split, plain, plain.candidates), item_at(split, mixed, mixed.candidates)
    np.testing.assert_array_equal(plain.content[..., 0], true)
    assert (true != shown).mean() > 0.8
    assert set(shown.ravel().tolist()) <= set(requests.known.tolist())


def test_new_items_are_ranked_among_themselves(split: Split) -> None:
    among = np.zeros(len(split.data.item_ids), bool)
    among[::3] = True
    measured = choose(split, requests_of(split), 1000, 5, 0, among)
    assert among[split.data.items[measured.events]].all()
    assert among[measured.sampled].all()


def test_without_states_nothing_of_the_user_is_left(split: Split) -> None:
    requests = requests_of(split)
    measured = choose(split, requests, 20, 5, seed=1)
    _, batch = next(requests.measured(measured.events, measured.sampled))
    bare = batch.without_states()
    assert batch.lengths.any()
    assert not bare.lengths.any()
    assert not bare.features[..., NAMES.index("log_history")].any()


def test_a_log_of_one_item_cannot_be_ranked() -> None:
    log = random_log(items=1)
    with pytest.raises(LogError, match="two items"):
        requests_of(time_split(log, cutoff_ms(log, 0.7)))


def test_context_features_are_about_one() -> None:
    features = context_features(
        np.array([0, 10**6]), np.array([0, 3000 * DAY_MS]), np.array([0, 10**13]), np.array([0, 256])
    )
    assert features.dtype == np.float32
    assert features.shape == (2, len(NAMES))
    assert features[0].tolist() == [0, 0, 0, 1, 0]
    assert np.abs(features).max() < 1.5
