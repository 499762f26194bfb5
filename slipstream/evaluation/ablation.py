"""What each part of the training brings: the same budget again and again, each time with one switch turned."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from encoder.checkpoint import load_checkpoint
from encoder.evaluation.evaluate import Baselines, evaluate_baselines, evaluate_model
from encoder.evaluation.metrics import means
from encoder.evaluation.protocol import Split
from encoder.training import TrainConfig
from slipstream.evaluation.outcome import Outcome, over_seeds
from slipstream.training import train_with_progress

#: Row -> fields of TrainConfig that differ from the default; `shape` holds fields of the shape.
ROWS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "no time gaps": {"time_gaps": False},
    "512 sampled negatives": {"negatives": 512},
    "512 sampled negatives, log-Q": {"negatives": 512, "log_q": True},
    "next token only": {"multi_token_weight": 0.0},
    "multi-token x 3": {"multi_token_weight": 0.3},
    "with future-token": {"future_token_weight": 0.1},
    "no dropout": {"dropout": 0.0, "block_dropout": 0.0},
    "no averaging": {"averaging": 0.0},
    "no crossing loss": {"crossing_weight": 0.0},
    "as many kv heads as heads": {"shape": {"kv_heads": None}},
    "4,096 rows a sub-table": {"shape": {"rows": 4096}},
}


def ablate(split: Split, train: TrainConfig, seeds: int, seed: int, console: Console) -> Outcome:
    """Train and measure each row with the seeds `train.seed` and up.

    Returns:
        `figures`: of each row `<row>_hr10`, `_ndcg10`, and their standard deviations over seeds; `details`: every run.
    """
    baselines = evaluate_baselines(split, None, seed, lambda text: None)
    figures: dict[str, float | int | None] = {}
    details: dict[str, Any] = {}
    for name, changes in ROWS.items():
        runs = []
        for number in range(seeds):
            console.print(f"{name}, seed {train.seed + number}", markup=False)
            runs.append(
                _once(split, replace(_changed(train, changes), seed=train.seed + number), baselines, seed, console)
            )
        details[name] = {"changes": msgspec.to_builtins(changes), "runs": runs}
        key = name.replace(" ", "_").replace(",", "").replace("-", "_")
        for metric in ("hr10", "ndcg10"):
            figures |= over_seeds(f"{key}_{metric}", [run[metric] for run in runs])
    return Outcome(figures, {"ablation": details})


def _changed(train: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    sizes = dict(changes.get("shape", {}))
    if "kv_heads" in sizes:
        sizes["kv_heads"] = train.shape.heads
    shape = msgspec.structs.replace(train.shape, **sizes)
    return replace(train, shape=shape, **{name: value for name, value in changes.items() if name != "shape"})


def _once(split: Split, train: TrainConfig, baselines: Baselines, seed: int, console: Console) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="slipstream-ablation-") as directory:
        made = train_with_progress(split.train_log, replace(train, held_out=0.0), Path(directory), console)
        ranks = evaluate_model(split, load_checkpoint(directory), baselines, False, seed).ranks
    return {"seed": train.seed, "steps": made["steps"], **means(ranks.unseen)}
