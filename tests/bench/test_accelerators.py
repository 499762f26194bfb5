from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.accelerators import AcceleratorsBench, run
from bench.parity import compare
from encoder.runtime import Runtime, RuntimeConfig
from schemas.bundle import ModelShape
from schemas.errors import ConfigError
from tests.bundles import random_bundle

SHAPE = ModelShape(layers=2, d_model=32, heads=2, kv_heads=1, context=64, keep=48, rows=32)


def test_it_measures_what_runs_here_and_names_what_does_not() -> None:
    said: list[str] = []
    result = run(AcceleratorsBench(presets=("nano",), batches=(1, 2), candidates=4, seconds=0.01), said.append)
    figures = result.figures
    assert {"nano_encode_cpu_states_per_s", "nano_append_cpu_states_per_s", "nano_cross_cpu_candidates_per_s"} <= set(
        figures
    )
    assert all(value is not None and value > 0 for value in figures.values())
    assert set(result.details["absent"]) <= {"tensorrt", "cuda"}
    for provider in result.details["absent"]:
        assert any(line.startswith(f"{provider} is left out: ") for line in said)
    cpu = next(of for of in result.details["measured"] if of["provider"] == "cpu")
    assert cpu["nodes_on_device"] == 1
    assert cpu["parity"] is None


def test_parity_sees_rounding_and_nothing_else(tmp_path: Path) -> None:
    bundle = random_bundle(tmp_path / "bundle", SHAPE)
    reference = Runtime(bundle)
    same = compare(reference, reference)
    assert (same.max_steps, same.slot_mean_steps, same.users_beyond, same.users_wrong) == (0, 0, 0, 0)
    half = compare(Runtime(bundle, RuntimeConfig(precision="fp16")), reference)
    assert 0 < half.max_steps < 1.5
    assert half.users_wrong == 0
    assert half.min_cosine > 0.9999


def test_parity_sees_another_model(tmp_path: Path) -> None:
    one, other = (Runtime(random_bundle(tmp_path / str(seed), SHAPE, seed)) for seed in (1, 2))
    parity = compare(one, other)
    assert parity.max_steps > 20
    assert parity.users_beyond == parity.users_wrong == 32
    assert np.isfinite(parity.max_score)


@pytest.mark.parametrize(
    "config", [{"presets": ("huge",)}, {"presets": ()}, {"batches": ()}, {"batches": (0,)}], ids=str
)
def test_a_wrong_configuration_is_refused(config: dict) -> None:
    with pytest.raises(ConfigError):
        AcceleratorsBench(**config)
