from __future__ import annotations

import numpy as np
import pytest
import torch

from encoder.export import TABLES, psi
from encoder.features import Features, item_rows, item_seeds
from encoder.model import PinFM, as_integers, as_stored
from encoder.weights import random_weights, weight_shapes
from schemas.bundle import ModelShape
from schemas.errors import ContractError
from schemas.scales import MAX_SCALE, MIN_SCALE, SIGNIFICANT_BITS
from schemas.sequence import RECORD
from schemas.vocabulary import Vocabulary

SHAPES = [
    ModelShape(layers=2, d_model=32, heads=2, kv_heads=1, context=24, keep=16, rows=64),
    ModelShape(layers=3, d_model=64, heads=4, kv_heads=2, context=24, keep=16, rows=64),
    ModelShape(layers=1, d_model=32, heads=4, kv_heads=4, context=24, keep=16, rows=64),
]


@pytest.fixture(params=SHAPES, ids=lambda s: f"L{s.layers}H{s.heads}G{s.kv_heads}")
def model(request: pytest.FixtureRequest) -> PinFM:
    model = PinFM(request.param, Vocabulary())
    model.load_weights(random_weights(request.param, Vocabulary()))
    return model.eval()


def tokens(model: PinFM, *size: int) -> torch.Tensor:
    return torch.randn(*size, model.shape.d_model, generator=torch.Generator().manual_seed(1))


def test_weights_are_those_that_graphs_expect(model: PinFM) -> None:
    weights = model.weights()
    assert {name: value.shape for name, value in weights.items()} == weight_shapes(model.shape, model.vocabulary)
    weights["items"][:] = 0
    assert model.weights()["items"].any(), "weights() hands out copies"


def test_weights_of_another_model_are_refused(model: PinFM) -> None:
    weights = model.weights()
    weights["extra"] = np.zeros(1, np.float32)
    with pytest.raises(ContractError, match="extra"):
        model.load_weights(weights, "there")


@torch.no_grad()
def test_the_past_does_not_know_the_future(model: PinFM) -> None:
    x = tokens(model, 2, 20)
    changed = x.clone()
    changed[:, 12:] += 1
    for stored in (None, as_stored):
        (before, kv), (after, kv_changed) = model.encode(x, stored), model.encode(changed, stored)
        assert torch.equal(before[:, :12], after[:, :12])
        assert not torch.allclose(before[:, 12:], after[:, 12:], atol=1e-3)
        for a, b in zip(kv.keys + kv.values, kv_changed.keys + kv_changed.values, strict=True):
            assert torch.equal(a[:, :12], b[:, :12])


@torch.no_grad()
def test_crossing_is_encoding_with_the_candidate_at_the_end(model: PinFM) -> None:
    """DCAT's promise: the same numbers as appending each candidate to the whole sequence."""
    x, candidates = tokens(model, 3, 20), tokens(model, 3, 5) * 0.7
    _, context = model.encode(x)
    lengths = torch.tensor([20, 7, 0])
    hidden, score = model.cross(candidates, context, lengths)
    for row, length in enumerate(lengths.tolist()):
        for c in range(5):
            whole, _ = model.encode(torch.cat([x[row, :length], candidates[row, c : c + 1]])[None])
            assert (hidden[row, c] - whole[0, -1]).abs().max() < 1e-5
    np.testing.assert_allclose(score, model.score(hidden).squeeze(-1))
    # A length for each candidate.
    per_candidate, _ = model.cross(candidates, context, lengths[:, None].expand(-1, 5))
    assert torch.equal(per_candidate, hidden)


@torch.no_grad()
def test_outputs_have_unit_length(model: PinFM) -> None:
    hidden, _ = model.encode(tokens(model, 2, 9))
    vectors = model.item_vectors(tokens(model, 50))
    for out in (hidden, vectors):
        assert (out.norm(dim=-1) - 1).abs().max() < 1e-5


@torch.no_grad()
def test_item_vectors_are_those_of_the_export(model: PinFM) -> None:
    rows = torch.from_numpy(item_rows(np.arange(50), item_seeds(0), 64))
    items = model.item_embeddings(rows)
    np.testing.assert_allclose(psi(model.weights(), items.numpy()), model.item_vectors(items), atol=1e-5)


@torch.no_grad()
def test_tokens_are_those_of_the_host(model: PinFM) -> None:
    """Training looks up what serving looks up."""
    weights, seeds = model.weights(), item_seeds(4)
    host = Features(*(weights[name] for name in TABLES), seeds)
    events = np.array([(0, 5, 3, 1), (60_000, -9, 6, 4), (60_500, 1 << 40, 0, 0)], RECORD)
    rows = torch.from_numpy(item_rows(events["item_id"], seeds, model.shape.rows))
    codes = (torch.from_numpy(events[name].astype(np.int64)) for name in ("action", "surface"))
    items = model.item_embeddings(rows)
    gaps = torch.tensor([0, 7, 1])  # none, 32 to 63 s, less than a second
    np.testing.assert_allclose(model.event_tokens(items, *codes, gaps), host.window_tokens(events), atol=1e-6)
    np.testing.assert_allclose(model.candidate_tokens(items), host.candidates(events["item_id"]), atol=1e-6)


def test_eight_bits_leave_half_a_step_of_error() -> None:
    x = torch.randn(400, 32, generator=torch.Generator().manual_seed(0)) * torch.logspace(-4, 2, 400)[:, None]
    largest = x.abs().amax(-1, keepdim=True)
    assert largest.max() < 127 * MAX_SCALE
    step = (largest / 127 * (1 + 2 / 2**SIGNIFICANT_BITS)).clamp(MIN_SCALE)  # rounding up may widen it by so much
    assert ((as_integers(x) - x).abs() <= step * (0.5 + 1e-5)).all()
    assert torch.equal(as_integers(torch.zeros(1, 4)), torch.zeros(1, 4))
