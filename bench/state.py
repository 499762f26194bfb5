"""`slipstream bench state`: what a user's state takes, in Redis and on the wire, in each code and beside its quality.

Sizes are of full states. Quality is that of models trained here for a while, or of checkpoints.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import redis

from bench.result import Result
from bench.state_codes import CODES, STORED
from bench.state_quality import FULL, measure_quality
from bench.state_sizes import Wire, measure_size, measure_steps, measure_wire
from encoder.checkpoint import Checkpoint, load_checkpoint
from encoder.tables import rows_for
from encoder.training import TrainConfig, train
from schemas.bundle import PRESETS, ModelShape
from schemas.errors import BundleError, ConfigError
from schemas.log import EventLog
from schemas.state import StateLayout
from schemas.vocabulary import Vocabulary
from slipstream.evaluation.run import EvaluateConfig, split_of
from stream.movielens import FILES, read_movielens

Say = Callable[[str], None]

_MODEL_ID = "be" * 8


@dataclass(frozen=True)
class StateBench:
    """
    Attributes:
        preset: size of the model.
        kv_heads: one training and one line of the table for each.
        log: MovieLens by name, for the quality.
        train_seconds: of each training; 0: no quality is measured, unless there is a checkpoint.
        checkpoints: trained models to take instead, each of the preset's size with kv heads of its own.
    """

    preset: str = "small"
    kv_heads: tuple[int, ...] = (4, 2, 1)
    log: str = "ml-100k"
    train_seconds: float = 60.0
    checkpoints: tuple[Path, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ConfigError(f"preset {self.preset!r}: choose from {', '.join(PRESETS)}")
        if self.log not in FILES:
            raise ConfigError(f"log {self.log!r}: choose from {', '.join(FILES)}")
        if not self.kv_heads or self.train_seconds < 0:
            raise ConfigError("name one number of kv heads or more, and no seconds below 0")
        for kv_heads in self.kv_heads:
            self.shape(kv_heads)

    def shape(self, kv_heads: int) -> ModelShape:
        preset = PRESETS[self.preset]
        if not 0 < kv_heads <= preset.heads or preset.heads % kv_heads:
            raise ConfigError(
                f"kv_heads {kv_heads}: the preset {self.preset} has {preset.heads} heads, name a divisor of that"
            )
        return msgspec.structs.replace(preset, kv_heads=kv_heads)


def read_checkpoints(config: StateBench) -> list[Checkpoint]:
    """The checkpoints that are to be measured.

    Raises:
        BundleError: one cannot be read, or is of other sizes than the preset.
        ConfigError: two have as many kv heads.
    """
    given = [load_checkpoint(path) for path in config.checkpoints]
    for path, checkpoint in zip(config.checkpoints, given, strict=True):
        shape = checkpoint.notes.shape
        if shape != msgspec.structs.replace(PRESETS[config.preset], kv_heads=shape.kv_heads, rows=shape.rows):
            raise BundleError(
                f"{path}: a model of other sizes than the preset {config.preset}: name its own with --preset"
            )
    if len({checkpoint.notes.shape.kv_heads for checkpoint in given}) < len(given):
        raise ConfigError("two checkpoints have as many kv heads: measure them one after the other")
    return given


def run(config: StateBench, given: list[Checkpoint], redis_url: str, say: Say) -> Result:
    """Measure.

    Args:
        given: as `read_checkpoints` read them.

    Raises:
        ConfigError: a checkpoint has seen the targets.
    """
    kv_heads = list(dict.fromkeys([*config.kv_heads, *(checkpoint.notes.shape.kv_heads for checkpoint in given)]))
    client = redis.Redis.from_url(redis_url)
    rows: list[dict[str, Any]] = []
    wires: dict[int, Wire] = {}
    for heads in kv_heads:
        layout = StateLayout(config.shape(heads), _MODEL_ID)
        wires[heads] = measure_wire(client, layout)
        rows += [measure_size(client, code, layout, wires[heads]) for code in CODES]
    quality = _qualities(config, given, kv_heads, say)
    for row in rows:
        row |= quality.get(row["kv_heads"], {}).get(row["code"], {})
        say(_line(row))
    own = PRESETS[config.preset].kv_heads
    main = own if own in kv_heads else kv_heads[0]
    stored = next(row for row in rows if row["code"] == STORED and row["kv_heads"] == main)
    figures: dict[str, float | int | None] = {
        "bytes_per_user": stored["bytes_per_user"],
        "redis_bytes_per_user": stored["redis_bytes"],
        "redis_bytes_ratio": stored["redis_bytes_ratio"],
        "jemalloc_bytes_per_user": stored["jemalloc_bytes"],
        **{f"{name}_bytes": size for name, size in wires[main]._asdict().items()},
        "hr10_loss": stored.get("hr10_loss"),
    }
    steps = measure_steps(client, StateLayout(config.shape(main), _MODEL_ID))
    plain = {**asdict(config), "checkpoints": [str(path) for path in config.checkpoints]}
    full = {str(heads): found[FULL] for heads, found in quality.items()}
    allocator = client.info("memory")["mem_allocator"]
    return Result("state", figures, plain, {"codes": rows, FULL: full, "steps": steps, "allocator": allocator})


def _qualities(
    config: StateBench, given: list[Checkpoint], kv_heads: list[int], say: Say
) -> dict[int, dict[str, dict[str, Any]]]:
    """kv heads -> code -> metrics; of checkpoints if there are any, else of a training for each."""
    if not given and not config.train_seconds:
        return {}
    log = read_movielens(config.log, Vocabulary())
    found = {}
    for path, checkpoint in zip(config.checkpoints, given, strict=True):
        split = split_of(log, EvaluateConfig(config.log, checkpoint=path), checkpoint)
        say(f"ranking {len(split.targets):,} targets in each code, by {path}")
        found[checkpoint.notes.shape.kv_heads] = measure_quality(split, checkpoint, config.seed)
    for heads in [] if given else kv_heads:
        found[heads] = _trained(config, config.shape(heads), log, say)
    return found


def _trained(config: StateBench, shape: ModelShape, log: EventLog, say: Say) -> dict[str, dict[str, Any]]:
    split = split_of(log, EvaluateConfig(config.log), None)
    say(f"training with {shape.kv_heads} kv heads for {config.train_seconds:g} s")
    rows = rows_for(len(np.unique(log.records["item_id"])))
    training = TrainConfig(
        shape=msgspec.structs.replace(shape, rows=rows),
        source=config.log,
        seed=config.seed,
        max_seconds=config.train_seconds,
        held_out=0.0,
        not_targets=(),
    )
    with tempfile.TemporaryDirectory(prefix="slipstream-bench-") as directory:
        train(split.train_log, training, directory)
        checkpoint = load_checkpoint(directory)
    say(f"ranking {len(split.targets):,} targets in each code")
    return measure_quality(split, checkpoint, config.seed)


def _line(row: dict[str, Any]) -> str:
    text = (
        f"{row['kv_heads']} kv heads, {row['code']}: {row['bytes_per_user']:,} bytes, {row['redis_bytes']:,} in Redis"
    )
    if row.get("hr10_loss") is not None:
        low, high = row["hr10_loss_interval"]
        text += f", HR@10 {row['hr10']:.4f}, loss {row['hr10_loss']:+.2%} ({low:+.2%} to {high:+.2%})"
    return text
