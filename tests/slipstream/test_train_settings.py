"""A training's settings: a TOML file, flags, and no key that nobody knows."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import msgspec
import pytest

from encoder.train_config import TrainConfig
from schemas.bundle import PRESETS, ModelShape
from schemas.errors import ConfigError
from slipstream.train_settings import train_config

FILE = """
preset = "small"
max_steps = 50
learning_rate = 1
not_targets = ["hide", "report"]
threads = "none"

[shape]
kv_heads = 4
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "train.toml"
    path.write_text(FILE)
    return path


def test_flags_go_before_assignments_and_those_before_the_file(file: Path) -> None:
    flags = {"seed": 7, "shape.rows": 4096, "devices": None}
    config = train_config(
        file, flags, ["seed=3", "batch_tokens=512", "shape.heads=8", "device=cpu"], items=9, source="x"
    )
    assert config.shape.heads == 8
    assert (config.shape.d_model, config.shape.kv_heads, config.shape.rows) == (128, 4, 4096)
    assert (config.seed, config.batch_tokens, config.device, config.devices) == (7, 512, "cpu", 1)
    assert (config.learning_rate, config.not_targets, config.threads) == (1.0, ("hide", "report"), None)
    assert (config.max_steps, config.max_seconds) == (50, None), "steps alone are no time"


def test_nothing_given_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").touch()
    config = train_config(tmp_path / "empty.toml", {}, (), items=1000, source="x")
    assert config == TrainConfig(replace_rows(4096), source="x")


def test_every_field_can_be_given(tmp_path: Path) -> None:
    config = TrainConfig()
    lines = []
    for field in fields(TrainConfig):
        value = getattr(config, field.name)
        if field.name not in ("shape", "source"):
            given = "none" if value is None else list(value) if isinstance(value, tuple) else value
            lines.append(f"{field.name} = {json.dumps(given)}")
    path = tmp_path / "all.toml"
    path.write_text("\n".join(lines))
    assert train_config(path, {}, (), items=4096, source="") == replace(config, shape=replace_rows(16_384))


@pytest.mark.parametrize(
    ("content", "assignments", "message"),
    [
        ("lerning_rate = 1", (), r"train\.toml: unknown key 'lerning_rate': did you mean learning_rate"),
        ("[shape]\nlayer = 1", (), r"unknown key 'shape\.layer': did you mean layers"),
        ("[optimizer]\nname = 'x'", (), "unknown key 'optimizer'"),
        ("shape = 3", (), "unknown key 'shape'"),
        ("source = 'x'", (), "unknown key 'source'"),
        ("learning_rate = 'high'", (), r"train\.toml: Expected `float`, got `str` - at `\$\.learning_rate`"),
        ("learning_rate = -1", (), r"learning_rate: -1\.0 is out of range"),
        ("devices = ", (), r"train\.toml: no TOML"),
        ("preset = 'huge'", (), "'huge': choose one of nano"),
        ("[shape]\nheads = 3", (), "must be a multiple of heads 3"),
        ("[shape]\nheads = 0", (), "shape: Expected `int` >= 1"),
        ("", ("seed",), "write NAME=VALUE"),
        ("", ("seeds=1",), "did you mean seed"),
        ("", ("precision=64",), "precision"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: str, assignments: tuple[str, ...], message: str) -> None:
    file = tmp_path / "train.toml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        train_config(file, {}, assignments, items=10, source="x")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml: No such file"):
        train_config(tmp_path / "nothing.toml", {}, (), items=10, source="x")


def replace_rows(rows: int) -> ModelShape:
    return msgspec.structs.replace(PRESETS["nano"], rows=rows)


def test_every_field_is_documented() -> None:
    document = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    for field in fields(TrainConfig):
        if field.name not in ("shape", "source"):
            assert f"`{field.name}`" in document, field.name
