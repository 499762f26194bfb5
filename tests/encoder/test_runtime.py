from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from encoder.bundle import Bundle
from encoder.providers import Opening, import_onnxruntime, open_sessions
from encoder.runtime import Runtime, RuntimeConfig, Slots
from schemas.bundle import ModelShape
from schemas.errors import BundleError, ConfigError, PrerequisiteError, ProviderError
from tests.bundles import random_bundle

SHAPE = ModelShape(layers=2, d_model=32, heads=2, kv_heads=1, context=16, keep=12, rows=32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return random_bundle(tmp_path_factory.mktemp("bundles") / "bundle", SHAPE)


@pytest.fixture(scope="module")
def runtime(bundle: Bundle) -> Runtime:
    return Runtime(bundle)


@pytest.fixture
def slots(runtime: Runtime) -> Slots:
    return runtime.encode(tokens(2, 6), np.array([5, 3]))


def tokens(*size: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((*size, SHAPE.d_model)).astype(np.float32)


def test_what_comes_out(runtime: Runtime, slots: Slots) -> None:
    assert (slots.kv.dtype, slots.kv.shape) == (np.int8, (2, 6, 2, 2, 1, 16))
    assert (slots.scales.dtype, slots.scales.shape) == (np.float16, (2, 6, 2, 2, 1))
    assert (slots.embedding.dtype, slots.embedding.shape) == (np.float32, (2, 32))
    np.testing.assert_allclose(np.linalg.norm(slots.embedding, axis=1), 1, atol=1e-5)
    appended = runtime.append(tokens(2, 3), slots.kv, slots.scales, np.array([6, 4]), np.array([2, 0]))
    assert appended.kv.shape == (2, 3, 2, 2, 1, 16)
    scores = runtime.cross(tokens(2, 9), slots.kv, slots.scales, np.array([6, 0]))
    assert (scores.hidden.shape, scores.score.shape) == ((2, 9, 32), (2, 9))
    assert (scores.hidden.dtype, scores.score.dtype) == (np.float32, np.float32)


def test_runs_on_the_provider_that_it_names(bundle: Bundle, runtime: Runtime) -> None:
    assert runtime.provider == "cpu"
    sessions, rung = open_sessions(lambda _: {"append": Opening(bundle.graph("append"))}, RuntimeConfig())
    assert rung == "cpu"
    assert sessions["append"].get_providers() == ["CPUExecutionProvider"]


def test_placement_counts_every_node_once(runtime: Runtime) -> None:
    assert set(runtime.placement) == {"encode", "append", "cross"}
    assert all(set(nodes) == {"cpu"} and nodes["cpu"] > 50 for nodes in runtime.placement.values())
    assert runtime.share_on_device() == 1


def test_a_provider_that_is_not_there_is_an_error(bundle: Bundle) -> None:
    with pytest.raises(ProviderError, match=r"cuda: .*slipstream-embeddings\[gpu\]"):
        Runtime(bundle, RuntimeConfig(providers=("cuda",)))
    with pytest.raises(ProviderError, match=r"tensorrt is required.*slipstream-embeddings\[tensorrt\]"):
        Runtime(bundle, RuntimeConfig(providers=("tensorrt", "cuda", "cpu"), require_provider="tensorrt"))
    with pytest.raises(ProviderError, match="cuda is required"):
        Runtime(bundle, RuntimeConfig(providers=("tensorrt", "cuda", "cpu"), require_provider="cuda"))


def test_the_ladder_goes_down_where_it_may_and_says_why(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    runtime = Runtime(bundle, RuntimeConfig(providers=("tensorrt", "cuda", "cpu")))
    assert (runtime.provider, runtime.precision) == ("cpu", "fp32")
    assert "running on cpu; not on tensorrt: " in caplog.text
    assert "Not on cuda: " in caplog.text
    assert Runtime(bundle, RuntimeConfig(providers=("cuda", "cpu"), require_provider="cpu")).provider == "cpu"


def test_a_missing_onnxruntime_names_what_to_install(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PrerequisiteError, match=r"slipstream-embeddings\[cpu\].*slipstream-embeddings\[gpu\]"):
        Runtime(bundle)


@pytest.mark.parametrize(
    "config",
    [
        {"providers": ("rocm",)},
        {"providers": ()},
        {"require_provider": "cuda"},
        {"threads": 0},
        {"graphs": ()},
        {"graphs": ("decode",)},
        {"precision": "int4"},
    ],
    ids=str,
)
def test_a_wrong_configuration_is_refused(config: dict) -> None:
    with pytest.raises(ConfigError):
        RuntimeConfig(**config)


def test_serving_needs_neither_torch_nor_onnx() -> None:
    """A ranker installs none of them."""
    script = (
        "import sys, encoder.runtime, encoder.bundle, encoder.features; print({'torch', 'onnx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(("given", "used"), [(None, "1"), ("0", "0")])
def test_onnxruntime_reports_to_nobody_unless_told_to(
    given: str | None, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    if given is not None:
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", given)
    import_onnxruntime()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == used


def test_only_what_was_asked_for_is_opened(bundle: Bundle) -> None:
    runtime = Runtime(bundle, RuntimeConfig(graphs=("cross",)))
    with pytest.raises(ConfigError, match="'encode' was not opened, only cross"):
        runtime.encode(tokens(1, 1), np.zeros(1, np.int64))


def test_a_graph_that_does_not_load_is_the_bundles_fault(bundle: Bundle, tmp_path: Path) -> None:
    broken = tmp_path / "encode.onnx"
    broken.write_bytes(bundle.graph("encode").read_bytes()[:-100])
    with pytest.raises(BundleError, match=r"encode\.onnx"):
        open_sessions(lambda _: {"encode": Opening(broken)}, RuntimeConfig())


ZERO = np.zeros(2, np.int64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": tokens(2, 17)}, "at most 16 tokens"),
        ({"tokens": tokens(2, 0)}, "no dimension 0"),
        ({"tokens": tokens(2, 3)[..., :31]}, r"tokens: got float32 \(2, 3, 31\)"),
        ({"tokens": tokens(2, 3).astype(np.float64)}, "float64"),
        ({"tokens": tokens(3, 3)}, "past_kv: "),
        ({"last": ZERO - 1}, "last: -1 to -1 is outside"),
        ({"last": ZERO + 3}, "last: 3 to 3 is outside of the 3 tokens"),
        ({"last": np.zeros(1, np.int64)}, "last: got"),
        ({"last": np.zeros(2, np.int32)}, "last: got int32"),
        ({"past_length": ZERO + 7}, "past_length: 7 to 7 is outside of the 6 slots"),
        ({"past_length": ZERO - 1}, "past_length: -1"),
        ({"past_kv": np.zeros((2, 0, 2, 2, 1, 16), np.int8)}, "past_kv: "),
        ({"past_kv": np.zeros((2, 6, 2, 2, 1, 16), np.uint8)}, "past_kv: got uint8"),
        ({"past_scales": np.zeros((2, 6, 2, 2, 1), np.float32)}, "past_scales: got float32"),
        ({"past_scales": np.zeros((2, 5, 2, 2, 1), np.float16)}, "past_scales: got"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_named(runtime: Runtime, slots: Slots, change: dict, message: str) -> None:
    arguments = {
        "tokens": tokens(2, 3),
        "past_kv": slots.kv,
        "past_scales": slots.scales,
        "past_length": ZERO + 6,
        "last": ZERO + 2,
    }
    runtime.append(**arguments)
    with pytest.raises(ConfigError, match=message):
        runtime.append(**{**arguments, **change})


def test_a_window_that_is_full_is_refused(runtime: Runtime) -> None:
    full = runtime.encode(tokens(1, 16), np.array([15]))
    one = np.zeros(1, np.int64)
    with pytest.raises(ConfigError, match="position 16, the context ends at 15"):
        runtime.append(tokens(1, 1), full.kv, full.scales, one + 16, one)
    # Pads may reach beyond it; a candidate stands behind it.
    runtime.append(tokens(1, 4), full.kv[:, :15], full.scales[:, :15], one + 15, one)
    runtime.cross(tokens(1, 4), full.kv, full.scales, one + 16)
