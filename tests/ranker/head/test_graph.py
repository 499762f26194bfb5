"""The exported ranker against torch: the same probabilities, whatever of it is switched on."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from encoder.model import KeyValues, PinFM
from encoder.weights import random_weights
from ranker.head.config import Fusion, RankerConfig
from ranker.head.context import NAMES
from ranker.head.graph import build_ranker
from ranker.head.model import Ranker
from schemas.bundle import ModelShape
from schemas.vocabulary import Vocabulary

#: Different orders of summation in fp32; measured 2e-7.
ROUNDING = 3e-6
LENGTHS = np.array([9, 4, 0])
CANDIDATES, CONTENT = 5, 6


def shape_of(kv_heads: int) -> ModelShape:
    return ModelShape(layers=2, d_model=32, heads=4, kv_heads=kv_heads, context=12, keep=8, rows=64)


def made(kv_heads: int, fusion: Fusion, token: bool, content: int) -> Ranker:
    shape = shape_of(kv_heads)
    model = PinFM(shape, Vocabulary())
    model.load_weights(random_weights(shape, Vocabulary(), seed=1))
    torch.manual_seed(0)
    config = RankerConfig(fusion=fusion, learnable_token=token, width=16, context_width=4)
    ranker = Ranker(model, config, 3, content).eval()
    with torch.no_grad():
        for name, value in ranker.named_parameters():
            if not name.startswith("module.model."):
                value.add_(torch.randn(value.shape) * 0.2)  # so that no bias or norm stays what it is at the start
    return ranker


def inputs(shape: ModelShape, content: int) -> dict[str, np.ndarray]:
    rng, users, slots = np.random.default_rng(2), len(LENGTHS), int(LENGTHS.max())
    kv = (users, slots, 2, shape.layers, shape.kv_heads)
    return {
        "items": rng.standard_normal((users, CANDIDATES, shape.d_model)).astype(np.float32),
        "features": rng.random((users, CANDIDATES, len(NAMES)), np.float32),
        "past_kv": rng.integers(-127, 128, (*kv, shape.head_dim), np.int8),
        "past_scales": (rng.random(kv) / 60).astype(np.float16),
        "past_length": LENGTHS,
        "embedding": rng.standard_normal((users, shape.d_model)).astype(np.float32),
        "content": rng.standard_normal((users, CANDIDATES, content)).astype(np.float32),
    }


@torch.no_grad()
def by_torch(ranker: Ranker, given: dict[str, np.ndarray], fusion: Fusion) -> np.ndarray:
    kv = torch.from_numpy(given["past_kv"].astype(np.float32) * given["past_scales"].astype(np.float32)[..., None])
    layers = range(ranker.module.model.shape.layers)
    context = KeyValues([kv[:, :, 0, i] for i in layers], [kv[:, :, 1, i] for i in layers])
    items, content = torch.from_numpy(given["items"]), torch.from_numpy(given["content"])
    states = []
    if fusion in ("both", "early"):
        ages = torch.zeros(items.shape[:2], dtype=torch.int64)
        crossed = ranker.module(context, torch.from_numpy(LENGTHS), items, ages, content if content.numel() else None)
        states.append(crossed.hidden)
    if fusion in ("both", "late"):
        states.append(ranker.module.model.item_vectors(items) * torch.from_numpy(given["embedding"])[:, None])
    return ranker.head(states, items, torch.from_numpy(given["features"])).sigmoid().numpy()


@pytest.mark.parametrize(
    ("kv_heads", "fusion", "token", "content"),
    [
        (1, "both", True, 0),
        (2, "both", True, 0),
        (4, "early", True, CONTENT),
        (1, "both", True, CONTENT),
        (2, "early", False, 0),
        (1, "late", True, 0),
        (1, "none", False, 0),
    ],
)
def test_the_graph_equals_torch(kv_heads: int, fusion: Fusion, token: bool, content: int) -> None:
    ranker, shape = made(kv_heads, fusion, token, content), shape_of(kv_heads)
    graph = build_ranker(*ranker.weights(), shape, fusion in ("both", "early"), fusion in ("both", "late"))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    every = inputs(shape, content)
    given = {name.name: every[name.name] for name in session.get_inputs()}
    assert ("content" in given) == bool(content)
    assert ("past_kv" in given) == (fusion in ("both", "early"))
    (got,) = session.run(None, given)
    want = by_torch(ranker, every, fusion)
    assert got.shape == (len(LENGTHS), CANDIDATES, 3)
    assert np.abs(want - want[:, :1]).max() > 0.01, "candidates differ"
    assert np.abs(got - want).max() < ROUNDING, f"max {np.abs(got - want).max():.1e}"
