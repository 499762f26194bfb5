"""The fp16 form against the fp32 form, on the CPU: what an accelerator is given, and how far its numbers may be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from encoder.accelerate import half_graphs
from encoder.bundle import Bundle
from encoder.graph_weights import read_weights
from encoder.graphs import build_append, build_cross, build_encode
from encoder.runtime import Runtime, RuntimeConfig, Scores, Slots
from encoder.weights import random_weights
from schemas.bundle import GRAPHS, ModelShape
from schemas.errors import BundleError
from schemas.scales import decode_scales, encode_scales
from schemas.vocabulary import Vocabulary
from tests.bundles import random_bundle
from tests.encoder.test_graphs import OPERATORS

SHAPES = [
    ModelShape(layers=2, d_model=64, heads=2, kv_heads=1, context=64, keep=48, rows=64),
    ModelShape(layers=3, d_model=64, heads=4, kv_heads=2, context=64, keep=48, rows=64),
    ModelShape(layers=2, d_model=32, heads=2, kv_heads=2, context=64, keep=48, rows=64),
]


class Case:
    """A model in both forms, and tokens of three users."""

    def __init__(self, shape: ModelShape, directory: Path) -> None:
        self.shape = shape
        self.bundle: Bundle = random_bundle(directory, shape)
        self.full = Runtime(self.bundle)
        self.half = Runtime(self.bundle, RuntimeConfig(precision="fp16", buckets=True))
        self.tokens: NDArray[np.float32] = (
            np.random.default_rng(1).standard_normal((3, shape.context, shape.d_model)).astype(np.float32)
        )
        self.slots = self.full.encode(self.tokens, np.full(3, shape.context - 1))


@pytest.fixture(scope="module", params=SHAPES, ids=lambda s: f"L{s.layers}H{s.heads}G{s.kv_heads}")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(request.param, tmp_path_factory.mktemp("bundles") / "bundle")


def assert_close(got: Slots, wanted: Slots) -> None:
    """No number is off by more than the next code, few are, and embeddings agree. A wrong mask or position is steps away."""
    scale = wanted.scales.astype(np.float32)[..., None]
    steps = np.abs(got.kv * got.scales.astype(np.float32)[..., None] - wanted.kv * scale) / scale
    cosine = (got.embedding * wanted.embedding).sum(axis=-1)
    print(f"max {steps.max():.3f}, mean {steps.mean():.4f} steps, cosine {cosine.min():.7f}")
    assert steps.max() < 1.5
    assert steps.mean() < 0.05
    assert cosine.min() > 0.99999


def assert_crossed_alike(got: Scores, wanted: Scores) -> None:
    assert (got.hidden * wanted.hidden).sum(axis=-1).min() > 0.9999
    assert np.abs(got.score - wanted.score).max() < 2e-3


def test_scales_are_on_the_grid(case: Case) -> None:
    got = case.half.encode(case.tokens, np.full(3, case.shape.context - 1)).scales
    np.testing.assert_array_equal(decode_scales(encode_scales(got)).view(np.uint16), got.view(np.uint16))


def test_encoding(case: Case) -> None:
    context = case.shape.context
    assert_close(case.half.encode(case.tokens, np.full(3, context - 1)), case.slots)
    last = np.array([0, 4, context // 2])
    short = case.tokens[:, : context // 2 + 1]
    got, wanted = case.half.encode(short, last), case.full.encode(short, last)
    for row, end in enumerate(last + 1):
        assert_close(*(Slots(of.kv[[row], :end], of.scales[[row], :end], of.embedding[[row]]) for of in (got, wanted)))


def test_appending_to_ragged_pasts(case: Case) -> None:
    context = case.shape.context
    kv, scales = case.slots.kv.copy(), case.slots.scales.copy()
    lengths = np.array([0, 7, context - 3])
    for row, length in enumerate(lengths):
        kv[row, length:], scales[row, length:] = 99, 5  # whatever pads hold
    arguments = (case.tokens[:, :3], kv[:, : context - 3], scales[:, : context - 3], lengths, np.array([2, 1, 2]))
    assert_close(case.half.append(*arguments), case.full.append(*arguments))


def test_growing_by_appends_stays_close_to_encoding(case: Case) -> None:
    """What it appends to is its own: errors must not build up."""
    at = case.shape.context - 30
    kv, scales, _ = case.half.encode(case.tokens[:, :at], np.full(3, at - 1))
    for count in (1, 1, 1, 7, 20):
        new = case.half.append(
            case.tokens[:, at : at + count], kv, scales, np.full(3, at), np.full(3, count - 1, np.int64)
        )
        kv, scales = np.concatenate([kv, new.kv], axis=1), np.concatenate([scales, new.scales], axis=1)
        at += count
    assert_close(Slots(kv, scales, new.embedding), case.slots)


def test_crossing(case: Case) -> None:
    context = case.shape.context
    candidates = np.random.default_rng(2).standard_normal((3, 11, case.shape.d_model)).astype(np.float32)
    for lengths in (np.array([context, 0, 9]), np.zeros(3, np.int64)):
        arguments = (candidates, case.slots.kv, case.slots.scales, lengths)
        assert_crossed_alike(case.half.cross(*arguments), case.full.cross(*arguments))


def test_extreme_tokens_stay_finite(case: Case) -> None:
    """What f16 cannot hold stays in f32 until its length is 1."""
    tokens = np.zeros((4, 6, case.shape.d_model), np.float32)
    tokens[1:] = np.array([1e4, 1e-6, -6e4])[:, None, None]
    out = case.half.encode(tokens, np.full(4, 5))
    assert np.isfinite(out.scales).all()
    assert np.isfinite(out.embedding).all()
    crossed = case.half.cross(tokens[:, :3], out.kv, out.scales, np.array([6, 6, 0, 6]))
    assert np.isfinite(crossed.hidden).all()
    assert np.isfinite(crossed.score).all()


@pytest.mark.parametrize("build", [build_encode, build_append, build_cross])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"G{s.kv_heads}")
def test_it_says_which_numbers_are_f16(build: object, shape: ModelShape) -> None:
    assert callable(build)
    model: onnx.ModelProto = build(random_weights(shape, Vocabulary()), shape, half=True)
    assert {(node.domain, node.op_type) for node in model.graph.node} <= {
        ("", operator) for operator in (*OPERATORS, "Softmax")
    }
    bytes_of = {onnx.TensorProto.FLOAT: 0, onnx.TensorProto.FLOAT16: 0, onnx.TensorProto.INT64: 0}
    for tensor in model.graph.initializer:
        bytes_of[tensor.data_type] += len(tensor.raw_data)
    # Matrices of the blocks are f16; keys and values are projected in f32, and so are the MLPs around the decoder.
    assert bytes_of[onnx.TensorProto.FLOAT16] > bytes_of[onnx.TensorProto.FLOAT] / 2
    assert not [
        name
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT16
        for name in [tensor.name]
        if not np.isfinite(onnx.numpy_helper.to_array(tensor)).all()
    ]
    same = build(random_weights(shape, Vocabulary()), shape)
    described = [
        [(value.name, value.type.SerializeToString()) for value in (*of.graph.input, *of.graph.output)]
        for of in (model, same)
    ]
    assert described[0] == described[1]


# ---- from a bundle


def test_weights_come_back_out_of_the_graphs(case: Case) -> None:
    """Although the query's are stored scaled, all transposed, and equal ones once."""
    weights = random_weights(case.shape, Vocabulary())
    read = read_weights(case.shape, case.bundle.graph("encode"), case.bundle.graph("cross"))
    on_the_host = ("items", "actions", "surfaces", "gaps", "candidate", "log_scale", "psi.")
    assert set(read) == {name for name in weights if not name.startswith(on_the_host)}
    for name, value in read.items():
        np.testing.assert_allclose(value, weights[name], rtol=1e-6, err_msg=name)


def test_equal_weights_are_told_apart(tmp_path: Path) -> None:
    """As zeros are, with which biases begin: the graph holds them once, under the name of the first."""
    shape = SHAPES[1]
    weights = {
        name: np.zeros_like(value) if name.endswith("bias") else value
        for name, value in random_weights(shape, Vocabulary()).items()
    }
    path = tmp_path / "encode.onnx"
    path.write_bytes(build_encode(weights, shape).SerializeToString())
    read = read_weights(shape, path)
    assert not read["blocks.2.down.bias"].any()
    np.testing.assert_allclose(read["blocks.2.down.weight"], weights["blocks.2.down.weight"])


def test_graphs_of_another_build_are_refused(case: Case, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"append\.onnx: not the graph that this build writes"):
        read_weights(case.shape, case.bundle.graph("append"))
    broken = tmp_path / "encode.onnx"
    broken.write_bytes(case.bundle.graph("encode").read_bytes()[:-100])
    with pytest.raises(BundleError, match=r"encode\.onnx: not an ONNX graph"):
        read_weights(case.shape, broken)


def test_the_same_bundle_gives_the_same_graphs(case: Case) -> None:
    """Engines are cached by their content."""
    assert half_graphs(case.bundle, GRAPHS) == half_graphs(case.bundle, GRAPHS)
