"""`bench state`: sizes are the layout's, codes leave what they say, and losses are counted against full precision."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.state import StateBench, read_checkpoints, run
from bench.state_codes import CODES, STORED
from bench.state_quality import FULL, _lost, measure_quality
from encoder.checkpoint import Checkpoint, CheckpointNotes, save_checkpoint
from encoder.evaluation.protocol import cutoff_ms, time_split
from encoder.features import item_seeds
from encoder.weights import random_weights
from schemas.bundle import PRESETS
from schemas.errors import BundleError, ConfigError
from schemas.log import EventLog
from schemas.sequence import RECORD
from schemas.state import StateLayout
from schemas.vocabulary import Vocabulary

BY_NAME = {code.name: code for code in CODES}


def checkpoint(preset: str) -> Checkpoint:
    shape, vocabulary = PRESETS[preset], Vocabulary()
    notes = CheckpointNotes(shape=shape, vocabulary=vocabulary, item_seeds=item_seeds(0))
    weights = {name: np.asarray(weight) for name, weight in random_weights(shape, vocabulary).items()}
    return Checkpoint(notes, weights, np.arange(3), np.ones(3, np.int64))


# ---- codes


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_stored_codes_slot_is_the_layouts(preset: str) -> None:
    shape = PRESETS[preset]
    assert BY_NAME[STORED].slot_bytes(shape) == StateLayout(shape, "00" * 8).slot_bytes


def test_slots_of_the_small_model() -> None:
    sizes = {code.name: code.slot_bytes(PRESETS["small"]) for code in CODES}
    assert sizes == {
        "fp16": 532,
        "int8_fp16_scales": 292,
        "int8": 284,
        "int8_k_int6_v": 252,
        "int8_k_int4_v": 220,
        "int4": 156,
        "kivi4": 180,
    }


def test_fewer_bits_leave_less() -> None:
    k, v = (torch.randn(2, 70, 2, 32, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    errors = {}
    for code in CODES:
        left = code.stored(k, v)
        assert [x.shape for x in left] == [k.shape, v.shape]
        errors[code.name] = [float((x - y).abs().mean()) for x, y in zip(left, (k, v), strict=True)]
    keys, values = (sorted(CODES, key=lambda code: errors[code.name][part]) for part in (0, 1))
    assert {code.name for code in keys[-2:]} == {"int4", "kivi4"}
    assert {code.name for code in values[-3:]} == {"int4", "kivi4", "int8_k_int4_v"}
    assert keys[0].name == values[0].name == "fp16"


def test_kivis_groups_are_channels_of_32_tokens_of_a_head() -> None:
    k = torch.randn(1, 40, 2, 8, generator=torch.Generator().manual_seed(0))
    left, _ = BY_NAME["kivi4"].stored(k, k)
    for start, stop in ((0, 32), (32, 40)):
        part = k[0, start:stop, 1, 3]
        least, step = part.min(), (part.max() - part.min()) / 15
        wanted = least + ((part - least) / step).round() * step
        assert (left[0, start:stop, 1, 3] - wanted).abs().max() < step * 0.02, "least and step are fp16"


# ---- quality


def test_hits_that_changed_are_counted_both_ways() -> None:
    hits, now = np.array([1, 1, 1, 1, 0, 0], bool), np.array([1, 1, 0, 0, 1, 0], bool)
    found = _lost(hits, now, np.arange(6), 0)
    assert (found["hr10_loss"], found["changed"]) == (pytest.approx(0.25), 3)
    low, high = found["hr10_loss_interval"]
    assert low < 0.25 < high
    assert _lost(~hits & ~now & hits, now, np.arange(6), 0)["hr10_loss"] is None


def test_each_code_is_ranked_beside_full_precision() -> None:
    rng, vocabulary = np.random.default_rng(0), Vocabulary()
    records = np.zeros(900, RECORD)
    records["timestamp_ms"] = 1_600_000_000_000 + np.arange(900) * 60_000
    records["item_id"] = rng.integers(1, 60, 900)
    log = EventLog([f"u{i}" for i in range(20)], rng.integers(0, 20, 900).astype(np.int32), records, vocabulary)
    found = measure_quality(time_split(log, cutoff_ms(log)), checkpoint("nano"))
    assert set(found) == {FULL, *BY_NAME}
    assert "hr10_loss" not in found[FULL]
    assert found["fp16"]["mrr"] == pytest.approx(found[FULL]["mrr"], rel=0.02)
    assert len({found[name]["mrr"] for name in found}) > 2, "codes are told apart"


# ---- the command


def test_sizes_are_measured_in_redis(redis_url: str) -> None:
    said: list[str] = []
    result = run(StateBench("nano", kv_heads=(1, 2), train_seconds=0), [], redis_url, said.append).as_json()
    figures, rows = result["figures"], result["details"]["codes"]
    layout = StateLayout(PRESETS["nano"], "00" * 8)
    assert figures["bytes_per_user"] == layout.value_bytes(256) == 39_168
    assert 1 <= figures["redis_bytes_ratio"] < 1.15
    assert (
        layout.header_bytes + layout.slot_bytes
        < figures["append_bytes"]
        < layout.header_bytes + layout.slot_bytes + 400
    )
    assert layout.value_bytes(256) < figures["read_bytes"] < layout.value_bytes(256) + 200
    assert layout.header_bytes < figures["embedding_read_bytes"] < layout.header_bytes + 200
    assert figures["hr10_loss"] is None
    assert len(said) == len(rows) == 2 * len(CODES)
    assert all(row["bytes_per_user"] <= row["redis_bytes"] < 1.4 * row["bytes_per_user"] for row in rows)
    steps = result["details"]["steps"]
    assert steps[-1]["capacity"] == 256
    assert all(step["bytes"] <= step["redis_bytes"] for step in steps)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"preset": "tiny"}, "choose from"),
        ({"kv_heads": ()}, "one number"),
        ({"kv_heads": (3,)}, "4 heads, name a divisor"),
        ({"log": "ml-20m"}, "choose from ml-100k, ml-1m"),
        ({"train_seconds": -1}, "seconds"),
    ],
)
def test_what_cannot_be_run_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(StateBench(), **wrong)  # type: ignore[arg-type]


def test_a_checkpoint_of_another_size_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint("nano"))
    with pytest.raises(BundleError, match="name its own with --preset"):
        read_checkpoints(StateBench(checkpoints=(tmp_path,)))


def test_two_checkpoints_of_one_line_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint("nano"))
    assert len(read_checkpoints(StateBench("nano", (1,), checkpoints=(tmp_path,)))) == 1
    with pytest.raises(ConfigError, match="as many kv heads"):
        read_checkpoints(StateBench("nano", (1,), checkpoints=(tmp_path, tmp_path)))
