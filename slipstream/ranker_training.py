"""Training a ranker with a progress bar for people, and writing it beside the bundle of its PinFM: `slipstream train-ranker`."""

from __future__ import annotations

from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from safetensors.numpy import save_file

from encoder.checkpoint import Checkpoint, save_checkpoint
from encoder.evaluation.protocol import Split
from encoder.finetune import first_seen_ms
from encoder.model import PinFM
from ranker.head.config import RankerConfig
from ranker.head.evaluate import choose, figures, scores
from ranker.head.graph import build_ranker
from ranker.head.model import Ranker
from ranker.head.requests import Requests
from ranker.head.saved import CHECKPOINT, WEIGHTS, Catalogue, RankerNotes, write_ranker
from ranker.head.training import Progress as TrainingProgress
from ranker.head.training import train_ranker
from schemas.errors import ConfigError
from slipstream.training import export_to

Tasks = tuple[tuple[str, int], ...]


def tasks_of(config: RankerConfig, split: Split) -> Tasks:
    """The tasks that the log can teach, with the codes of their actions.

    Raises:
        ConfigError: there are none.
    """
    data, codes = split.data, split.train_log.vocabulary.action_codes
    seen = set(data.actions[split.trained].tolist())
    tasks = tuple((name, codes[name]) for name in config.tasks if codes.get(name) in seen)
    if not tasks:
        raise ConfigError(
            f"tasks: none of {', '.join(config.tasks)} is an action of the log before T, which has "
            f"{', '.join(name for name, code in codes.items() if code in seen)}: set tasks to some of these"
        )
    return tasks


def make_requests(split: Split, checkpoint: Checkpoint, tasks: Tasks, content: NDArray[np.float32] | None) -> Requests:
    notes = checkpoint.notes
    codes = [code for _, code in tasks]
    return Requests(split, codes, notes.vocabulary, notes.shape, notes.item_seeds, content)


def new_ranker(
    checkpoint: Checkpoint, config: RankerConfig, tasks: Tasks, content: NDArray[np.float32] | None
) -> Ranker:
    """A ranker that begins with a checkpoint's PinFM."""
    torch.manual_seed(config.seed)
    model = PinFM(checkpoint.notes.shape, checkpoint.notes.vocabulary)
    model.load_weights(checkpoint.weights)
    return Ranker(model, config, len(tasks), 0 if content is None else content.shape[1])


def train_and_measure(
    split: Split, checkpoint: Checkpoint, config: RankerConfig, content: NDArray[np.float32] | None, console: Console
) -> tuple[Ranker, Tasks, dict[str, Any]]:
    """Train on what is before T, measure after it.

    Returns:
        The ranker, its tasks, and what the training came to: steps, seconds, loss; `metrics`, of each also `..._without_states`:
        the same ranker where no state can be read.

    Raises:
        LogError, ConfigError: as the parts that it calls.
    """
    tasks = tasks_of(config, split)
    requests = make_requests(split, checkpoint, tasks, content)
    measured = choose(split, requests, config.eval_requests, config.eval_sampled, config.seed)
    ranker = new_ranker(checkpoint, config, tasks, content)
    columns = (TextColumn("train-ranker"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("train-ranker", total=1.0, told="")

        def show(p: TrainingProgress) -> None:
            bar.update(task, completed=p.share, told=f"step {p.step:,}, loss {p.loss:.4f}")

        trained = train_ranker(ranker, requests, config, show)
    metrics = figures(split, measured, scores(ranker, requests, measured), tasks)
    without = figures(split, measured, scores(ranker, requests, measured, states=False), tasks)
    metrics |= {f"{name}_without_states": value for name, value in without.items()}
    made = {"steps": trained.step, "seconds": trained.seconds, "loss": trained.loss, "metrics": metrics}
    return ranker, tasks, made


def save_ranker(
    out: Path,
    ranker: Ranker,
    split: Split,
    checkpoint: Checkpoint,
    config: RankerConfig,
    tasks: Tasks,
    made: dict[str, Any],
    data_dir: Path,
    bundle: Path | None,
) -> dict[str, str]:
    """Write the ranker's directory, and export the PinFM that was trained with it (slipstream.training.export_to).

    Returns:
        `model_id`, `bundle` and `ranker`: where they lie.
    """
    model, others = ranker.weights()
    trained = {"last_event_ms": int(split.data.timestamps_ms[split.trained].max()), "events": int(split.trained.sum())}
    described = msgspec.to_builtins(asdict(config))
    notes = msgspec.structs.replace(
        checkpoint.notes, training={**checkpoint.notes.training, **trained, "ranker": described}, metrics={}
    )
    save_checkpoint(out / CHECKPOINT, replace(checkpoint, notes=notes, weights=model))
    manifest, exported = export_to(out / CHECKPOINT, data_dir, bundle)
    save_file(others, out / WEIGHTS)
    graph = build_ranker(model, others, notes.shape, config.early, config.late).SerializeToString(deterministic=True)
    ranker_notes = RankerNotes(
        model_id=manifest.model_id,
        tasks=tuple(name for name, _ in tasks),
        content_width=ranker.module.config.content_width,
        graph_sha256=sha256(graph).hexdigest(),
        config=described,
        metrics=made["metrics"],
    )
    write_ranker(out, ranker_notes, graph, catalogue_of(split))
    return {"model_id": manifest.model_id, "bundle": str(exported), "ranker": str(out)}


def catalogue_of(split: Split) -> Catalogue:
    """What is known of items at T."""
    data, counts = split.data, split.item_counts
    known = np.flatnonzero(counts)
    first = first_seen_ms(data.items[split.trained], data.timestamps_ms[split.trained], len(counts))
    return Catalogue(data.item_ids[known], counts[known], first[known])
