"""The graphs against torch, and against themselves: whatever the batch, the padding and the way, a slot has the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from encoder.bundle import load_bundle
from encoder.export import Catalogue, export_weights
from encoder.features import item_seeds
from encoder.graphs import build_append, build_cross, build_encode
from encoder.model import PinFM, as_stored
from encoder.runtime import Runtime, Slots
from encoder.weights import random_weights
from schemas.bundle import PRESETS, ModelShape
from schemas.scales import SIGNIFICANT_BITS, decode_scales, encode_scales
from schemas.vocabulary import Vocabulary

SHAPES = [
    ModelShape(layers=2, d_model=64, heads=2, kv_heads=1, context=64, keep=48, rows=64),
    ModelShape(layers=3, d_model=64, heads=4, kv_heads=2, context=64, keep=48, rows=64),
    ModelShape(layers=2, d_model=32, heads=2, kv_heads=2, context=64, keep=48, rows=64),
    ModelShape(layers=1, d_model=64, heads=4, kv_heads=1, context=64, keep=48, rows=64),
    PRESETS["nano"],
]
#: Plain operators that TensorRT knows too, none of ONNX Runtime's own.
OPERATORS = {
    *(
        "Abs",
        "Add",
        "Cast",
        "Clip",
        "Concat",
        "Div",
        "Exp",
        "Expand",
        "Gather",
        "GatherND",
        "Gelu",
        "Greater",
        "Identity",
    ),
    *("LayerNormalization", "Less", "LessOrEqual", "MatMul", "Max", "Min", "Mul", "Not", "ReduceL2", "ReduceMax"),
    *("ReduceSum", "Reshape", "Round", "Shape", "Slice", "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where"),
}


@dataclass
class Case:
    """A model in both forms, some users' tokens, and their slots from the encode graph."""

    shape: ModelShape
    model: PinFM
    runtime: Runtime
    tokens: NDArray[np.float32]  # (3, context, d)
    slots: Slots

    def append(self, row: int, start: int, stop: int, past_slots: int) -> Slots:
        """Append tokens [start, stop) of a user alone, its past padded to `past_slots`."""
        kv, scales = self.past([row], [start], past_slots)
        return self.runtime.append(self.tokens[[row], start:stop], kv, scales, i64(start), i64(stop - start - 1))

    def past(
        self, rows: list[int], lengths: list[int], past_slots: int
    ) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
        kv = np.zeros((len(rows), past_slots, *self.slots.kv.shape[2:]), np.int8)
        scales = np.zeros((len(rows), past_slots, *self.slots.scales.shape[2:]), np.float16)
        for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            kv[i, :length], scales[i, :length] = self.slots.kv[row, :length], self.slots.scales[row, :length]
        return kv, scales


@pytest.fixture(scope="module", params=SHAPES, ids=lambda s: f"L{s.layers}d{s.d_model}H{s.heads}G{s.kv_heads}")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    shape: ModelShape = request.param
    return make_case(shape, tmp_path_factory.mktemp("bundles") / "bundle")


def make_case(shape: ModelShape, directory: Path) -> Case:
    vocabulary = Vocabulary()
    weights = random_weights(shape, vocabulary)
    model = PinFM(shape, vocabulary)
    model.load_weights(weights)
    catalogue = Catalogue(np.arange(3), np.ones(3, np.int64))
    export_weights(
        weights, directory, shape=shape, vocabulary=vocabulary, item_seeds=item_seeds(0), catalogue=catalogue
    )
    runtime = Runtime(load_bundle(directory))
    tokens = np.random.default_rng(1).standard_normal((3, shape.context, shape.d_model)).astype(np.float32)
    return Case(shape, model.eval(), runtime, tokens, runtime.encode(tokens, i64(*[shape.context - 1] * 3)))


def i64(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def same(slots: Slots, row: int, case: Case, reference_row: int, start: int, count: int) -> None:
    """Not close: the same."""
    for name in ("kv", "scales"):
        got = getattr(slots, name)[row, :count]
        expected = getattr(case.slots, name)[reference_row, start : start + count]
        differing = int((got != expected).sum())
        print(f"{name}: {differing} of {got.size} differ")
        assert not differing, f"{name}: {differing} of {got.size} differ"


# ---- against torch


@torch.no_grad()
def test_encode_is_torchs(case: Case) -> None:
    hidden, context = case.model.encode(torch.from_numpy(case.tokens), as_stored)
    dequantised = case.slots.kv * case.slots.scales[..., None].astype(np.float32)
    step = case.slots.scales[..., None].astype(np.float32)
    for part, tensors in enumerate((context.keys, context.values)):
        for layer, tensor in enumerate(tensors):
            steps_apart = np.abs(tensor.numpy() - dequantised[:, :, part, layer]) / step[:, :, part, layer]
            share = float((steps_apart > 0.1).mean())
            print(
                f"part {part} layer {layer}: {share:.2%} differ, max {steps_apart.max():.3f}, mean {steps_apart.mean():.5f} steps"
            )
            # A rounding here or there may fall the other way: one step of int8, and not often. Where the scale itself does,
            # all of its values move by less than a step.
            assert steps_apart.max() < 1.1
            assert share < 0.05
    difference = np.abs(hidden[:, -1].numpy() - case.slots.embedding)
    print(f"embedding: max {difference.max():.2e}, mean {difference.mean():.2e}")
    assert difference.max() < 5e-4
    assert difference.mean() < 5e-5


@torch.no_grad()
def test_cross_is_torchs(case: Case) -> None:
    """Ragged: a full past, none at all, and one with pads."""
    context = case.shape.context
    _, torch_past = case.model.encode(torch.from_numpy(case.tokens), as_stored)
    candidates = np.random.default_rng(2).standard_normal((3, 7, case.shape.d_model)).astype(np.float32)
    lengths = i64(context, 0, context // 3)
    scores = case.runtime.cross(candidates, case.slots.kv, case.slots.scales, lengths)
    hidden, score = case.model.cross(torch.from_numpy(candidates), torch_past, torch.from_numpy(lengths))
    for name, got, expected in (("hidden", scores.hidden, hidden), ("score", scores.score, score)):
        difference = np.abs(got - expected.numpy())
        print(f"{name}: max {difference.max():.2e}, mean {difference.mean():.2e}")
        assert difference.max() < 1e-3
        assert difference.mean() < 1e-4


# ---- against themselves, bit by bit


def test_a_slot_does_not_depend_on_the_batch(case: Case) -> None:
    for row in range(3):
        alone = case.runtime.encode(case.tokens[[row]], i64(case.shape.context - 1))
        same(alone, 0, case, row, 0, case.shape.context)
        np.testing.assert_array_equal(alone.embedding[0], case.slots.embedding[row])


def test_a_slot_does_not_depend_on_what_follows(case: Case) -> None:
    rng = np.random.default_rng(0)
    for length in (1, 2, 3, case.shape.context // 2 + 1):
        padded = rng.standard_normal((1, length + 9, case.shape.d_model)).astype(np.float32) * 5
        padded[:, :length] = case.tokens[:1, :length]
        exact = case.runtime.encode(case.tokens[:1, :length], i64(length - 1))
        with_pads = case.runtime.encode(padded, i64(length - 1))
        same(exact, 0, case, 0, 0, length)
        same(with_pads, 0, case, 0, 0, length)
        np.testing.assert_array_equal(exact.embedding, with_pads.embedding)


@pytest.mark.parametrize("step", [1, 3, 20])
def test_appending_gives_the_slots_of_encoding(case: Case, step: int) -> None:
    """From the first event on, on top of what was appended before, with more or less padding of the past."""
    context = case.shape.context
    start = 1 if context < 100 else context - 30
    kv, scales = (np.zeros_like(part[:1]) for part in (case.slots.kv, case.slots.scales))
    kv[:, :start], scales[:, :start] = case.slots.kv[:1, :start], case.slots.scales[:1, :start]
    for number, at in enumerate(range(start, context, step)):
        n = min(step, context - at)
        slots = context if number % 2 else at
        out = case.runtime.append(case.tokens[:1, at : at + n], kv[:, :slots], scales[:, :slots], i64(at), i64(n - 1))
        kv[:, at : at + n], scales[:, at : at + n] = out.kv, out.scales
    same(Slots(kv, scales, out.embedding), 0, case, 0, 0, context)
    np.testing.assert_array_equal(out.embedding, case.slots.embedding[:1])


def test_one_event_on_any_past(case: Case) -> None:
    """A product with a single column, new or past, once took another way: with groups of heads a number was off by a rounding."""
    for row in range(3):
        for past in range(1, min(case.shape.context, 64)):
            same(case.append(row, past, past + 1, past), 0, case, row, past, 1)


def test_appending_to_nothing_is_encoding(case: Case) -> None:
    out = case.append(0, 0, 10, past_slots=4)
    same(out, 0, case, 0, 0, 10)
    np.testing.assert_array_equal(out.embedding, case.runtime.encode(case.tokens[:1, :10], i64(9)).embedding)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_ragged_batch_gives_each_user_its_own_slots(case: Case, data: st.DataObject) -> None:
    context = case.shape.context
    rows = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=4))
    lengths = [data.draw(st.integers(0, context - 1)) for _ in rows]
    counts = [data.draw(st.integers(1, context - length)) for length in lengths]
    past_slots = data.draw(st.integers(max(*lengths, 1), context))
    kv, scales = case.past(rows, lengths, past_slots)
    tokens = np.zeros((len(rows), max(counts), case.shape.d_model), np.float32)
    for i, (row, length, count) in enumerate(zip(rows, lengths, counts, strict=True)):
        tokens[i, :count] = case.tokens[row, length : length + count]
    out = case.runtime.append(tokens, kv, scales, i64(*lengths), i64(*counts) - 1)
    for i, (row, length, count) in enumerate(zip(rows, lengths, counts, strict=True)):
        same(out, i, case, row, length, count)
        alone = case.append(row, length, length + count, max(length, 1))
        np.testing.assert_array_equal(out.embedding[i], alone.embedding[0])


def test_late_events_and_deletions_keep_what_came_before(case: Case) -> None:
    """An event comes in at 20, one at 30 goes: slots before stay, the rest is encoded on top; as if from scratch."""
    extra = case.tokens[1, :1]
    wanted = np.concatenate([case.tokens[0, :20], extra, case.tokens[0, 20:29], case.tokens[0, 30:50]])[None]
    scratch = case.runtime.encode(wanted, i64(wanted.shape[1] - 1))
    kv, scales = case.past([0], [20], 33)
    out = case.runtime.append(wanted[:, 20:], kv, scales, i64(20), i64(wanted.shape[1] - 21))
    np.testing.assert_array_equal(out.kv, scratch.kv[:, 20:])
    np.testing.assert_array_equal(out.scales.view(np.uint16), scratch.scales[:, 20:].view(np.uint16))
    np.testing.assert_array_equal(out.embedding, scratch.embedding)
    np.testing.assert_array_equal(scratch.kv[:, :20], case.slots.kv[:1, :20])


def test_scales_are_on_the_grid_and_none_is_too_small(case: Case) -> None:
    kv, scales = case.slots.kv, case.slots.scales
    np.testing.assert_array_equal(decode_scales(encode_scales(scales)).view(np.uint16), scales.view(np.uint16))
    largest = np.abs(kv.astype(np.int64)).max(axis=-1)
    assert largest.max() == 127, (
        "the grid is rounded up to: a number reaches the end of the code only if it is on the grid"
    )
    assert largest.min() >= np.floor(127 * (1 - 2 / 2**SIGNIFICANT_BITS)), "and no further than a step of it"


def test_cross_ignores_pads_and_neighbours(case: Case) -> None:
    """Close, not the same: nothing of a crossing is stored."""
    candidates = np.random.default_rng(3).standard_normal((2, 40, case.shape.d_model)).astype(np.float32)
    kv, scales = case.past([0, 1], [17, 0], case.shape.context)
    kv[0, 17:], scales[0, 17:] = 55, 3  # whatever pads hold
    together = case.runtime.cross(candidates, kv, scales, i64(17, 0))
    alone = case.runtime.cross(candidates[:1, 5:6], *case.past([0], [17], 17), i64(17))
    cold = case.runtime.cross(candidates[1:], *case.past([1], [0], 1), i64(0))
    np.testing.assert_allclose(alone.hidden[0, 0], together.hidden[0, 5], atol=1e-5)
    np.testing.assert_allclose(cold.hidden[0], together.hidden[1], atol=1e-5)
    np.testing.assert_allclose(cold.score[0], together.score[1], atol=1e-5)


def test_extreme_tokens_stay_finite(case: Case) -> None:
    """Zeros, huge and tiny numbers: a state must never hold what is no number."""
    tokens = np.zeros((4, 6, case.shape.d_model), np.float32)
    tokens[1:] = np.array([1e4, 1e-6, -6e4])[:, None, None]
    out = case.runtime.encode(tokens, i64(5, 5, 5, 5))
    assert np.isfinite(out.scales).all()
    assert (out.scales > 0).all()
    assert np.isfinite(out.embedding).all()
    crossed = case.runtime.cross(tokens[:, :3], out.kv, out.scales, i64(6, 6, 0, 6))
    assert np.isfinite(crossed.hidden).all()
    assert np.isfinite(crossed.score).all()


def test_ties_and_one_dominating_key_are_weighed_right(case: Case) -> None:
    """Equal tokens share their weight; exactness must not come from weights that were rounded away."""
    tokens = np.repeat(case.tokens[:1, :1], case.shape.context, axis=1)
    out = case.runtime.encode(tokens, i64(case.shape.context - 1))
    with torch.no_grad():
        hidden, _ = case.model.encode(torch.from_numpy(tokens), as_stored)
    assert np.abs(out.embedding - hidden[:, -1].numpy()).max() < 5e-4


# ---- the files


@pytest.mark.parametrize("build", [build_encode, build_append, build_cross])
@pytest.mark.parametrize("shape", SHAPES[:3], ids=lambda s: f"G{s.kv_heads}")
def test_graphs_use_plain_operators(build: object, shape: ModelShape) -> None:
    assert callable(build)
    model: onnx.ModelProto = build(random_weights(shape, Vocabulary()), shape)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 21)]
    assert {(node.domain, node.op_type) for node in model.graph.node} <= {("", operator) for operator in OPERATORS}
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    dynamic = {
        dim.dim_param for value in model.graph.input for dim in value.type.tensor_type.shape.dim if dim.dim_param
    }
    assert dynamic <= {"B", "T", "P", "U", "C"}
    dtypes = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.INT64}
    assert {tensor.data_type for tensor in model.graph.initializer} <= dtypes
