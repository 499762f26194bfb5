"""Every graph, in both forms, through TensorRT's parser and builder, with the profiles that its provider would be given.

TensorRT for RTX builds ahead of time without a GPU; without it (pip install tensorrt-rtx-cu13, proprietary) this is skipped. What
it builds is for a sister product and runs nowhere here: it proves operators, types and profiles, nothing else (docs/gpu.md).
"""

from __future__ import annotations

import pytest

from encoder.buckets import profile
from encoder.graphs import build_append, build_cross, build_encode
from encoder.weights import random_weights
from schemas.bundle import ModelShape
from schemas.vocabulary import Vocabulary

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")

BUILDERS = {"encode": build_encode, "append": build_append, "cross": build_cross}
SHAPES = [
    ModelShape(layers=2, d_model=64, heads=4, kv_heads=kv_heads, context=64, keep=48, rows=64) for kv_heads in (1, 2)
]


@pytest.mark.parametrize("half", [True, False], ids=["fp16", "fp32"])
@pytest.mark.parametrize("graph", BUILDERS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"G{s.kv_heads}")
def test_it_builds_an_engine(shape: ModelShape, graph: str, half: bool) -> None:
    model = BUILDERS[graph](random_weights(shape, Vocabulary()), shape, half)
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    parsed = parser.parse(model.SerializeToString())
    assert parsed, [parser.get_error(i).desc() for i in range(parser.num_errors)]
    of = profile(graph, shape)
    least, typical, most = map(of.shapes, of.extremes())
    assert {network.get_input(i).name for i in range(network.num_inputs)} == set(least)
    shapes = builder.create_optimization_profile()
    for name in least:
        shapes.set_shape(name, least[name], typical[name], most[name])
    config = builder.create_builder_config()
    assert config.add_optimization_profile(shapes) >= 0
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    assert builder.build_serialized_network(network, config) is not None
