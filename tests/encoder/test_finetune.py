"""Fine-tuning: the crossing with a learnable token against attention over whole sequences; what is random, and how often."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from encoder.finetune import (
    DAY_MS,
    FineTuneConfig,
    FineTuned,
    cross_after,
    first_seen_ms,
    item_ages_ms,
    kept_by_age,
    randomise,
    ranking_loss,
)
from encoder.model import KeyValues, PinFM
from encoder.weights import random_weights
from schemas.bundle import ModelShape
from schemas.errors import ConfigError
from schemas.vocabulary import Vocabulary

SHAPE = ModelShape(layers=2, d_model=32, heads=4, kv_heads=2, context=12, keep=8, rows=64)
USERS, CANDIDATES = 3, 4
LENGTHS = torch.tensor([12, 5, 0])
OLD = torch.full((USERS, CANDIDATES), 100 * DAY_MS)


@pytest.fixture
def model() -> PinFM:
    model = PinFM(SHAPE, Vocabulary())
    model.load_weights(random_weights(SHAPE, Vocabulary(), seed=1))
    return model.eval()


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(USERS, SHAPE.context, SHAPE.d_model, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def context(model: PinFM, tokens: Tensor) -> KeyValues:
    with torch.no_grad():
        return model.encode(tokens)[1]


def of_candidates(width: int, count: int = CANDIDATES, seed: int = 1) -> Tensor:
    return torch.randn(USERS, count, width, generator=torch.Generator().manual_seed(seed))


def slow_cross_after(model: PinFM, before: Tensor, candidate: Tensor, tokens: Tensor, length: int) -> Tensor:
    """One candidate of one user, as the last of a whole sequence that attends to itself causally."""
    sequence = torch.cat([tokens[:length], before[None], candidate[None]])[None]
    positions = torch.tensor([*range(length), length, length])
    x = model.phi_in(sequence) * math.sqrt(SHAPE.d_model) + model.positions[positions]
    for block in model.decoder():
        q, k, v = block.project(x)
        k, v = k.transpose(1, 2), v.transpose(1, 2)
        x = block.finish(x, functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True))
    last: Tensor = model.phi_out(model.norm(x))[0, -1]
    return last


@pytest.mark.parametrize("count", [1, CANDIDATES])
@torch.no_grad()
def test_a_token_before_the_candidate_is_one_token_more_of_the_sequence(
    model: PinFM, tokens: Tensor, context: KeyValues, count: int
) -> None:
    before, candidates = of_candidates(SHAPE.d_model, count, 2), of_candidates(SHAPE.d_model)
    got = cross_after(model, before, candidates, context, LENGTHS)
    for u in range(USERS):
        for c in range(CANDIDATES):
            own = before[u, min(c, count - 1)]
            expected = slow_cross_after(model, own, candidates[u, c], tokens[u], int(LENGTHS[u]))
            torch.testing.assert_close(got[u, c], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    "config", [FineTuneConfig(), FineTuneConfig(content_width=5), FineTuneConfig(learnable_token=False)]
)
def test_requests_of_one_window_see_what_came_before_each(
    model: PinFM, context: KeyValues, config: FineTuneConfig
) -> None:
    """P requests with lengths of their own are as P windows, each cut at its length."""
    torch.manual_seed(0)
    tuned = FineTuned(model, config).eval()
    lengths = torch.tensor([[12, 3], [5, 0], [0, 1]])
    items = of_candidates(SHAPE.d_model, 2 * CANDIDATES)
    content = of_candidates(config.content_width, 2 * CANDIDATES, 3) if config.content_width else None
    ages = torch.full((USERS, 2 * CANDIDATES), 100 * DAY_MS)
    together = tuned(context, lengths, items, ages, content).hidden.unflatten(1, (2, CANDIDATES))
    for p in range(2):
        part = slice(p * CANDIDATES, (p + 1) * CANDIDATES)
        alone = tuned(context, lengths[:, p], items[:, part], OLD, None if content is None else content[:, part]).hidden
        torch.testing.assert_close(together[:, p], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_without_a_token_it_is_the_models_crossing(model: PinFM, context: KeyValues) -> None:
    items = of_candidates(SHAPE.d_model)
    tuned = FineTuned(model, FineTuneConfig(learnable_token=False)).eval()
    fused = tuned(context, LENGTHS, items, OLD)
    expected, _ = model.cross(model.candidate_tokens(items), context, LENGTHS)
    torch.testing.assert_close(fused.hidden, expected, rtol=0, atol=0)
    assert fused.kept.all()


@torch.no_grad()
def test_content_is_what_it_is_given_for_and_none_is_the_token_alone(model: PinFM, context: KeyValues) -> None:
    items, content = of_candidates(SHAPE.d_model), of_candidates(5)
    content[:, 0] = 0
    torch.manual_seed(0)
    tuned = FineTuned(model, FineTuneConfig(content_width=5)).eval()
    with_content = tuned(context, LENGTHS, items, OLD, content).hidden
    without = tuned(context, LENGTHS, items, OLD, torch.zeros_like(content)).hidden
    torch.testing.assert_close(with_content[:, 0], without[:, 0])
    assert ((with_content - without)[:, 1:].abs().amax(-1) > 1e-3).all()
    changed = content.clone()
    changed[:, 2] += 1
    moved = (tuned(context, LENGTHS, items, OLD, changed).hidden - with_content).abs().amax(-1) > 1e-4
    assert moved.tolist() == [[False, False, True, False]] * USERS


@torch.no_grad()
def test_evaluation_drops_nothing_and_training_whole_outputs(model: PinFM, context: KeyValues) -> None:
    items, young = of_candidates(SHAPE.d_model), torch.zeros_like(OLD)
    tuned = FineTuned(model, FineTuneConfig(age_dropout=((7.0, 1.0),)))
    whole = tuned.eval()(context, LENGTHS, items, young)
    assert whole.kept.all()
    ages = young.clone()
    ages[:, 1] = 8 * DAY_MS
    dropped = tuned.train()(context, LENGTHS, items, ages)
    assert dropped.kept.tolist() == [[False, True, False, False]] * USERS
    torch.testing.assert_close(dropped.hidden[:, 1], whole.hidden[:, 1])
    assert not dropped.hidden[~dropped.kept].any()
    torch.testing.assert_close(dropped.logits, whole.logits)


def test_what_is_dropped_trains_the_module_by_its_own_loss_alone(model: PinFM, context: KeyValues) -> None:
    tuned = FineTuned(model, FineTuneConfig(age_dropout=((7.0, 1.0),))).train()
    items = of_candidates(SHAPE.d_model)
    fused = tuned(context, LENGTHS, items, torch.zeros_like(OLD))
    assert tuned.token is not None
    (through_output,) = torch.autograd.grad(fused.hidden.square().sum(), tuned.token, retain_graph=True)
    (through_own,) = torch.autograd.grad(fused.logits.sum(), tuned.token)
    assert not through_output.any()
    assert through_own.any()


@pytest.mark.parametrize(("content", "config"), [(None, FineTuneConfig(content_width=5)), (5, FineTuneConfig())])
def test_content_where_there_should_be_none_and_none_where_there_should(
    model: PinFM, context: KeyValues, content: int | None, config: FineTuneConfig
) -> None:
    given = None if content is None else of_candidates(content)
    with pytest.raises(ConfigError, match="content_width"):
        FineTuned(model, config)(context, LENGTHS, of_candidates(SHAPE.d_model), OLD, given)


def test_dropout_follows_the_age() -> None:
    ages = torch.tensor([0, 7 * DAY_MS - 1, 7 * DAY_MS, 28 * DAY_MS - 1, 28 * DAY_MS, 10_000 * DAY_MS])
    kept = kept_by_age(ages.expand(20_000, -1), FineTuneConfig().age_dropout, torch.Generator().manual_seed(0))
    shares = kept.double().mean(0)
    torch.testing.assert_close(shares, torch.tensor([0.3, 0.3, 0.5, 0.5, 1.0, 1.0]).double(), rtol=0, atol=0.02)
    assert shares[4:].tolist() == [1.0, 1.0]
    assert kept_by_age(ages, (), None).all()


def test_a_tenth_of_the_candidates_is_another_item() -> None:
    candidates = torch.full((1000, 20), 7)
    got = randomise(candidates, 500, 0.1, torch.Generator().manual_seed(0))
    other = got[got != 7]
    assert abs(len(other) / candidates.numel() - 0.1 * 499 / 500) < 0.01
    assert 0 <= int(other.min()) < 20
    assert 480 <= int(other.max()) < 500
    assert (candidates == 7).all()
    assert (randomise(candidates, 500, 0.0) == 7).all()


def test_ages_are_since_the_first_event_of_an_item() -> None:
    first = first_seen_ms(np.array([2, 0, 2]), np.array([50, 30, 40]), 4)
    assert first[[0, 2]].tolist() == [30, 40]
    items, now = np.array([0, 2, 1, 3, -1, 0]), np.array([100, 41, 100, 1 << 60, 100, 10])
    assert item_ages_ms(first, items, now).tolist() == [70, 1, 0, 0, 0, 0]
    assert item_ages_ms(first[:0], np.array([-1]), np.array([5])).tolist() == [0]


def test_the_module_learns_a_tenth_as_fast(model: PinFM) -> None:
    tuned, ranker = FineTuned(model, FineTuneConfig(tasks=2, content_width=3)), torch.nn.Linear(4, 2)
    slow, fast = tuned.groups(ranker.parameters(), 0.01)
    assert (slow["lr"], fast["lr"]) == (pytest.approx(0.001), 0.01)
    both = [id(p) for group in (slow, fast) for p in group["params"]]
    assert sorted(both) == sorted(id(p) for p in (*tuned.parameters(), *ranker.parameters()))
    assert {id(p) for p in slow["params"]} == {id(p) for p in model.parameters()}


def test_the_loss_is_over_what_was_shown() -> None:
    logits, labels = torch.randn(2, 3, 2), torch.ones(2, 3, 2)
    shown = torch.tensor([[True, False, False], [False, False, True]])
    expected = -torch.log(torch.sigmoid(logits[shown])).mean()
    torch.testing.assert_close(ranking_loss(logits, labels, shown), expected)
    assert ranking_loss(logits, labels, torch.zeros_like(shown)) == 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"tasks": 0}, "tasks"),
        ({"random_candidates": 1.5}, "random_candidates"),
        ({"age_dropout": ((28.0, 0.5), (7.0, 0.7))}, "age_dropout"),
        ({"age_dropout": ((7.0, 1.2),)}, "age_dropout"),
        ({"learning_rate_ratio": -1.0}, "learning_rate_ratio"),
        ({"content_width": 4, "learnable_token": False}, "switch learnable_token on"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(wrong: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        FineTuneConfig(**wrong)


def test_new_items_are_told_apart_by_their_content_alone() -> None:
    """Items have no trained embedding; whether a user likes one is in its content. Only a model that sees it can know."""
    losses = {width: _fine_tuned_loss(width) for width in (0, 2)}
    assert losses[2] < 0.35
    assert losses[0] > 0.6  # log 2 is what chance gives


def _fine_tuned_loss(width: int) -> float:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = PinFM(SHAPE, Vocabulary())
    tuned = FineTuned(model, FineTuneConfig(content_width=width, age_dropout=()))
    optimizer = torch.optim.AdamW(tuned.groups([], 1e-2))
    kinds = torch.randn(2, SHAPE.d_model, generator=generator)
    loss = torch.zeros(())
    last: list[float] = []
    for _ in range(120):
        likes = torch.randint(2, (32,), generator=generator)  # each user's events are of one kind
        _, context = model.encode(kinds[likes][:, None].expand(-1, 6, -1))
        kind = torch.randint(2, (32, 8), generator=generator)
        content = functional.one_hot(kind, 2).float() if width else None
        items = torch.randn(32, 8, SHAPE.d_model, generator=generator)
        ages = torch.zeros(32, 8, dtype=torch.long)
        fused = tuned(context, torch.full((32,), 6), items, ages, content)
        labels = (kind == likes[:, None]).float()[..., None]
        loss = ranking_loss(fused.logits, labels, torch.ones(32, 8, dtype=torch.bool))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        last.append(float(loss.detach()))
    return float(np.mean(last[-20:]))
