from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder.accelerate import cuda_options, engine_prefix, openings, tensorrt_options
from encoder.buckets import MAX_CROSSED_CANDIDATES, MAX_CROSSED_USERS, MAX_ROWS, profile, steps
from encoder.bundle import Bundle
from encoder.capture import CapturedRuns
from encoder.runs import Runs
from encoder.runtime import Runtime, RuntimeConfig
from schemas.bundle import GRAPHS, PRESETS, ModelShape
from schemas.errors import ConfigError
from tests.bundles import random_bundle

AS_SET = RuntimeConfig()
SHAPE = ModelShape(layers=2, d_model=32, heads=2, kv_heads=1, context=24, keep=18, rows=32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return random_bundle(tmp_path_factory.mktemp("bundles") / "bundle", SHAPE)


@pytest.fixture(scope="module")
def exact(bundle: Bundle) -> Runtime:
    return Runtime(bundle)


@pytest.fixture(scope="module")
def bucketed(bundle: Bundle) -> Runtime:
    return Runtime(bundle, RuntimeConfig(buckets=True))


def test_steps() -> None:
    assert steps(24) == (1, 2, 4, 8, 16, 24)
    assert steps(256, least=16) == (16, 24, 32, 48, 64, 96, 128, 192, 256)
    assert steps(1) == (1,)


@given(most=st.integers(1, 3000), data=st.data())
def test_padding_adds_no_more_than_what_is_there(most: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, most))
    step = next(step for step in steps(most) if step >= size)
    assert step < 2 * size or size == step


@pytest.mark.parametrize("graph", GRAPHS)
def test_ranges_are_checked(graph: str) -> None:
    of = profile(graph, SHAPE)
    least, typical, most = of.extremes()
    for sizes in (least, typical, most):
        assert set(of.padded(sizes)) == set(of.steps)
    for dim in of.steps:
        for size in (0, most[dim] + 1):
            with pytest.raises(ConfigError, match=rf"{dim}: {size} is outside of 1 to {most[dim]}"):
                of.padded({**typical, dim: size})


def test_no_dimension_of_the_past_is_empty() -> None:
    for graph in ("append", "cross"):
        assert profile(graph, SHAPE).extremes()[0]["P"] >= 1


@pytest.mark.parametrize(("rows", "n_tokens"), [(1, 1), (3, 5), (5, 24), (MAX_ROWS + 3, 3)])
def test_encoding_is_the_same_in_buckets(exact: Runtime, bucketed: Runtime, rows: int, n_tokens: int) -> None:
    rng = np.random.default_rng(rows)
    tokens = rng.standard_normal((rows, n_tokens, SHAPE.d_model)).astype(np.float32)
    last = rng.integers(0, n_tokens, rows)
    for got, wanted in zip(bucketed.encode(tokens, last), exact.encode(tokens, last), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(("rows", "n_past"), [(1, 1), (3, 17), (2 * MAX_ROWS + 1, 20)])
def test_appending_is_the_same_in_buckets(exact: Runtime, bucketed: Runtime, rows: int, n_past: int) -> None:
    rng = np.random.default_rng(rows)
    slots = exact.encode(
        rng.standard_normal((rows, n_past, SHAPE.d_model)).astype(np.float32), np.full(rows, n_past - 1)
    )
    tokens = rng.standard_normal((rows, 3, SHAPE.d_model)).astype(np.float32)
    arguments = (tokens, slots.kv, slots.scales, rng.integers(0, n_past + 1, rows), rng.integers(0, 3, rows))
    for got, wanted in zip(bucketed.append(*arguments), exact.append(*arguments), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("users", "candidates"), [(1, 1), (3, 5), (MAX_CROSSED_USERS + 2, 3), (2, MAX_CROSSED_CANDIDATES + 5)]
)
def test_crossing_is_as_good_in_buckets(exact: Runtime, bucketed: Runtime, users: int, candidates: int) -> None:
    rng = np.random.default_rng(users)
    slots = exact.encode(rng.standard_normal((users, 9, SHAPE.d_model)).astype(np.float32), np.full(users, 8))
    tokens = rng.standard_normal((users, candidates, SHAPE.d_model)).astype(np.float32)
    arguments = (tokens, slots.kv, slots.scales, rng.integers(0, 10, users))
    for got, wanted in zip(bucketed.cross(*arguments), exact.cross(*arguments), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_runs_with_buffers_of_their_own_are_the_same(bundle: Bundle, exact: Runtime) -> None:
    """As captured ones have on CUDA; here they are on the CPU. Shapes come once, twice, and often, in between each other."""
    of = profile("append", SHAPE)
    options = ort.SessionOptions()
    session = ort.InferenceSession(str(bundle.graph("append")), options, disabled_optimizers=["SkipLayerNormFusion"])
    runs = CapturedRuns(ort, session, of, device="cpu")
    rng = np.random.default_rng(0)
    slots = exact.encode(rng.standard_normal((8, 17, SHAPE.d_model)).astype(np.float32), np.full(8, 16))
    for _ in range(4):
        for rows, n_tokens in ((3, 2), (7, 4), (4, 1), (1, 3)):
            feed = {
                "tokens": rng.standard_normal((rows, n_tokens, SHAPE.d_model)).astype(np.float32),
                "last": rng.integers(0, n_tokens, rows),
                "past_kv": slots.kv[:rows],
                "past_scales": slots.scales[:rows],
                "past_length": rng.integers(0, 18, rows),
            }
            sizes = of.sizes(feed)
            steps_of = of.padded(sizes)
            got = runs.run(of.pad(feed, steps_of), steps_of)
            wanted = exact.append(
                feed["tokens"], feed["past_kv"], feed["past_scales"], feed["past_length"], feed["last"]
            )
            for name, value, other in zip(of.outputs, got, wanted, strict=True):
                np.testing.assert_array_equal(of.unpad(name, value, sizes), other)


def test_what_does_not_fit_the_window_is_refused(bucketed: Runtime) -> None:
    tokens = np.zeros((1, 25, SHAPE.d_model), np.float32)
    with pytest.raises(ConfigError, match="at most 24 tokens"):
        bucketed.encode(tokens, np.zeros(1, np.int64))


@pytest.mark.parametrize("graph", GRAPHS)
def test_warming_up_runs_what_the_profile_says(bundle: Bundle, graph: str) -> None:
    session = ort.InferenceSession(str(bundle.graph(graph)))
    Runs(session, profile(graph, SHAPE), buckets=True, captures=False).warm_up()


# ---- what providers would be told


def test_what_cuda_is_told(bundle: Bundle, tmp_path: Path) -> None:
    opened = openings(
        bundle,
        {"append": profile("append", SHAPE)},
        RuntimeConfig().half_on,
        RuntimeConfig().captures_on,
        tmp_path,
        "cuda",
    )["append"]
    assert opened.options == {"cuda": cuda_options(captures=True)}
    assert isinstance(opened.graph, bytes)


def test_what_the_cpu_is_given(bundle: Bundle, tmp_path: Path) -> None:
    opened = openings(
        bundle,
        {"append": profile("append", SHAPE)},
        RuntimeConfig().half_on,
        RuntimeConfig().captures_on,
        tmp_path,
        "cpu",
    )["append"]
    assert opened.graph == bundle.graph("append")


def test_what_tensorrt_is_told(bundle: Bundle, tmp_path: Path) -> None:
    cache = tmp_path / "engines"
    profiles = {name: profile(name, SHAPE) for name in GRAPHS}
    opened = openings(bundle, profiles, AS_SET.half_on, AS_SET.captures_on, cache, "tensorrt")
    assert cache.is_dir()
    for name, opening in opened.items():
        options = opening.options["tensorrt"]
        assert options["trt_fp16_enable"] == "1"
        assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"] == str(cache)
        assert f"slipstream-{bundle.model_id}-{name}-" in options["trt_engine_cache_prefix"]
        # With a profile for some dynamic inputs but not for all, TensorRT's provider refuses the session.
        for kind in ("min", "opt", "max"):
            given = dict(shape.split(":") for shape in options[f"trt_profile_{kind}_shapes"].split(","))
            assert set(given) == set(profiles[name].inputs)
        assert opening.options["cuda"] == cuda_options(captures=False)  # what it cannot run
    assert len({opening.options["tensorrt"]["trt_engine_cache_prefix"] for opening in opened.values()}) == 3


def test_tensorrt_profiles_of_small() -> None:
    options = tensorrt_options(profile("append", PRESETS["small"]), "prefix", Path("cache"), half=True)
    assert options["trt_profile_min_shapes"] == (
        "tokens:1x1x128,last:1,past_kv:1x16x2x4x1x32,past_scales:1x16x2x4x1,past_length:1"
    )
    assert options["trt_profile_max_shapes"] == (
        "tokens:256x256x128,last:256,past_kv:256x256x2x4x1x32,past_scales:256x256x2x4x1,past_length:256"
    )


def test_other_weights_or_another_form_are_another_engine() -> None:
    """TensorRT's own key knows neither."""
    assert engine_prefix("a" * 16, "append", b"graph") == engine_prefix("a" * 16, "append", b"graph")
    assert engine_prefix("a" * 16, "append", b"graph") != engine_prefix("b" * 16, "append", b"graph")
    assert engine_prefix("a" * 16, "append", b"graph") != engine_prefix("a" * 16, "append", b"graph, fp16")
