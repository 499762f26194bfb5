"""The crossing, against two slow oracles: torch's own, and each candidate encoded with its user's whole history."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from encoder.model import KeyValues, PinFM
from encoder.runtime import Runtime, RuntimeConfig
from encoder.weights import random_weights
from ranker.dcat import Dcat, Request, Scores
from ranker.rows import Row, Status
from schemas.errors import ConfigError, StateError
from schemas.scales import decode_scales
from schemas.state import State
from tests.ranker.conftest import Model

#: Different orders of summation in fp32; measured 2e-7.
ROUNDING = 2e-6
#: Attention of a stored event sees its own key and value as int8, that of a candidate does not: measured .0026 without a
#: history, .00004 after 255 events.
OWN_INT8 = 0.006


def items(seed: int, count: int) -> NDArray[np.int64]:
    """Item ids of the catalogue and far outside of it."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(count) < 0.8, rng.integers(1, 200, count), rng.integers(0, 1 << 62, count))


def assert_close(got: Scores, want: Scores, tolerance: float) -> None:
    for name, a, b in (("hidden", got.hidden, want.hidden), ("score", got.score, want.score)):
        assert a.shape == b.shape
        if a.size:
            difference = np.abs(a - b)
            assert difference.max() <= tolerance, f"{name}: max {difference.max():.2e}, mean {difference.mean():.2e}"


class Counting(Runtime):
    """The real runtime, noting the shapes that it runs."""

    def __init__(self, model: Model) -> None:
        super().__init__(model.bundle, RuntimeConfig(graphs=("cross",)))
        self.shapes: list[tuple[int, int, int]] = []

    def cross(self, candidates, past_kv, past_scales, past_length) -> Scores:  # type: ignore[no-untyped-def]
        self.shapes.append((*candidates.shape[:2], past_kv.shape[1]))
        return super().cross(candidates, past_kv, past_scales, past_length)


@pytest.fixture
def counting(model: Model) -> Counting:
    return Counting(model)


# Oracles


def torch_scores(model: Model, state: State | None, candidates: NDArray[np.int64]) -> Scores:
    """The crossing by torch, with the keys and values that the state's int8 stands for."""
    net = PinFM(model.bundle.shape, model.bundle.manifest.vocabulary)
    net.load_weights(random_weights(model.bundle.shape, model.bundle.manifest.vocabulary, 0))
    slots = np.zeros(1, model.bundle.layout.slot) if state is None else state.slots
    kv = torch.from_numpy(slots["kv"] * decode_scales(slots["scale_codes"]).astype(np.float32)[..., None])
    layers = range(model.bundle.shape.layers)
    context = KeyValues([kv[None, :, 0, i] for i in layers], [kv[None, :, 1, i] for i in layers])  # (1, P, G, D)
    tokens = torch.from_numpy(model.bundle.features.candidates(candidates))[None]
    with torch.no_grad():
        hidden, score = net.cross(tokens, context, torch.tensor([0 if state is None else len(slots)]))
    return Scores(hidden[0].numpy(), score[0].numpy())


@pytest.mark.parametrize("length", [0, 1, 2, 31, 128, 256])
def test_crossing_equals_torchs(model: Model, length: int) -> None:
    state = model.state(1, length) if length else None
    candidates = items(2, 50)
    (got,) = model.dcat().score([Request(state, candidates)])
    assert_close(got, torch_scores(model, state, candidates), ROUNDING)
    np.testing.assert_allclose(np.linalg.norm(got.hidden, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("length", [0, 1, 30, 255])
def test_crossing_equals_encoding_each_candidate_with_its_history(model: Model, length: int) -> None:
    """The naive way: one pass over the whole history per candidate, the candidate as the next token."""
    features, history, candidates = model.bundle.features, model.history(3, length), items(4, 20)
    (got,) = model.dcat().score([Request(model.state(3, length) if length else None, candidates)])
    tokens = np.zeros((len(candidates), length + 1, model.bundle.shape.d_model), np.float32)
    tokens[:, :length] = features.window_tokens(history)
    tokens[:, length] = features.candidates(candidates)
    naive = model.runtime.encode(tokens, np.full(len(candidates), length)).embedding
    difference = np.abs(got.hidden - naive)
    assert difference.max() <= OWN_INT8, f"max {difference.max():.2e}, mean {difference.mean():.2e}"
    assert difference.max() < np.abs(naive[0] - naive[1]).max() / 5, "candidates differ by more than the tolerance"


def test_the_state_matters(model: Model) -> None:
    candidates = items(5, 30)
    a, b, cold = model.dcat().score(
        [Request(model.state(1, 40), candidates), Request(model.state(2, 40), candidates), Request(None, candidates)]
    )
    assert np.abs(a.hidden - b.hidden).max() > 0.05
    assert np.abs(a.hidden - cold.hidden).max() > 0.05


# Batches of requests


def test_a_batch_gives_what_each_request_gives_alone(model: Model) -> None:
    lengths = [0, 256, 3, 77, 0, 200, 1]
    counts = [5, 300, 40, 1, 0, 41, 90]
    requests = [
        Request(model.state(i, length) if length else None, items(i, count))
        for i, (length, count) in enumerate(zip(lengths, counts, strict=True))
    ]
    requests += [requests[1], Request(requests[3].user, items(9, 64)), Request(None, items(9, 3))]
    together = model.dcat().score(requests)
    assert len(together) == len(requests)
    for request, got in zip(requests, together, strict=True):
        assert_close(got, model.dcat().score([request])[0], ROUNDING)


def test_candidates_do_not_see_each_other(model: Model) -> None:
    state, candidates = model.state(1, 60), items(1, 40)
    (whole,) = model.dcat().score([Request(state, candidates)])
    (part,) = model.dcat().score([Request(state, candidates[::-1][:7])])
    assert_close(part, Scores(whole.hidden[::-1][:7], whole.score[::-1][:7]), ROUNDING)


def test_a_user_of_several_requests_is_laid_into_the_graph_once(model: Model, counting: Counting) -> None:
    dcat = Dcat(counting, model.bundle.features, model.bundle.layout)
    state = model.state(1, 50)
    reread = State(state.header, state.slots.copy())
    dcat.score([Request(state, items(i, 10)) for i in range(5)] + [Request(reread, items(9, 10))])
    assert counting.shapes == [(1, 60, 50)]


def test_cold_users_are_laid_into_the_graph_once(model: Model, counting: Counting) -> None:
    dcat = Dcat(counting, model.bundle.features, model.bundle.layout)
    missing = Row("nobody", Status.NOT_FOUND)
    damaged = Row("hurt", Status.INVALID, why="damaged")
    got = dcat.score([Request(user, items(1, 10)) for user in (None, missing, damaged)])
    assert counting.shapes == [(1, 30, 1)]
    assert_close(got[1], got[0], ROUNDING)


def test_two_writes_of_one_user_are_two_states(model: Model, counting: Counting) -> None:
    dcat = Dcat(counting, model.bundle.features, model.bundle.layout)
    dcat.score([Request(model.state(1, 50), items(1, 10)), Request(model.state(2, 50), items(1, 10))])
    assert counting.shapes == [(2, 10, 50)]


def test_very_many_candidates_of_one_user(model: Model) -> None:
    state, candidates = model.state(1, 16), items(1, 9000)
    (got,) = model.dcat().score([Request(state, candidates)])
    (some,) = model.dcat().score([Request(state, candidates[[0, 4095, 4096, 8999]])])
    picked = Scores(got.hidden[[0, 4095, 4096, 8999]], got.score[[0, 4095, 4096, 8999]])
    assert_close(picked, some, ROUNDING)


def test_no_requests_and_no_candidates(model: Model, counting: Counting) -> None:
    dcat = Dcat(counting, model.bundle.features, model.bundle.layout)
    assert dcat.score([]) == []
    (got,) = dcat.score([Request(model.state(1, 5), np.empty(0, np.int64))])
    assert (got.hidden.shape, got.score.shape) == ((0, 64), (0,))
    assert not counting.shapes


# Rows


def test_a_stale_row_is_used_like_a_present_one(model: Model) -> None:
    state, candidates = model.state(1, 20), items(1, 10)
    rows = [Row("u", status, 9, 20, state.header.embedding, state) for status in (Status.PRESENT, Status.STALE)]
    got = model.dcat().score([Request(row, candidates) for row in rows])
    assert_close(got[0], got[1], 0)


def test_a_row_without_its_slots_is_refused(model: Model) -> None:
    row = Row("u-17", Status.PRESENT, 9, 20, np.zeros(64, np.float16), None)
    with pytest.raises(ConfigError, match="'u-17' was read with `embedding_only`"):
        model.dcat().score([Request(row, items(1, 3))])


def test_a_state_of_another_model_is_refused(model: Model) -> None:
    state = model.state(1, 20)
    other = State(state.header._replace(model_id="ff" * 8), state.slots)
    with pytest.raises(StateError, match=f"model ffffffffffffffff cannot be crossed by model {model.bundle.model_id}"):
        model.dcat().score([Request(other, items(1, 3))])


@pytest.mark.parametrize("candidates", [["a", "b"], [1.5], [[1, 2]], 7])
def test_candidates_that_are_no_item_ids_are_refused(model: Model, candidates: object) -> None:
    with pytest.raises(ConfigError, match="hash_item_id"):
        model.dcat().score([Request(None, np.array(candidates))])


def test_a_list_of_integers_is_good_enough(model: Model) -> None:
    got, want = model.dcat().score([Request(None, [3, 4]), Request(None, np.array([3, 4], np.int32))])  # type: ignore[arg-type]
    assert_close(got, want, ROUNDING)
