"""Train on what comes before, measure on what comes after: a log in, figures and tables out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console

from encoder.checkpoint import Checkpoint, load_checkpoint
from encoder.evaluation.evaluate import Baselines, ModelEvaluation, Tell, evaluate_baselines, evaluate_model, tables
from encoder.evaluation.freshness import at, series
from encoder.evaluation.metrics import METRICS, means
from encoder.evaluation.protocol import DEFAULT_SHARE, Protocol, Split, cutoff_ms, last_split, time_split
from encoder.evaluation.sasrec import SasrecConfig
from encoder.tables import rounded_tables
from encoder.training import TrainConfig
from schemas.bundle import INT4
from schemas.errors import ConfigError
from schemas.log import EventLog
from slipstream.evaluation.ablation import ablate
from slipstream.evaluation.outcome import Outcome, over_seeds
from slipstream.evaluation.served import serve
from slipstream.training import train_with_progress


@dataclass(frozen=True)
class EvaluateConfig:
    """
    Attributes:
        source: the log's name; figures of ml-100k end in `_100k`.
        share: T is this quantile of the timestamps. A checkpoint brings its own T: the end of what it was trained on.
        train: None to measure no model but the baselines, unless there is a checkpoint.
        seeds: models that are trained, with the seeds `train.seed` and up.
        served_users: users whose targets are ranked by served states too; 0 for none.
        int4: also with item tables in int4.
        ablation: train again and again instead, each time with one switch of the training turned.
        freshness_ms: the pipeline's measured freshness, to be marked on the curve.
        seed: of samples, intervals and ties.
    """

    source: str
    protocol: Protocol = "time"
    share: float = DEFAULT_SHARE
    train: TrainConfig | None = None
    checkpoint: Path | None = None
    seeds: int = 1
    sasrec_seconds: float = 0.0
    freshness: bool = False
    freshness_ms: tuple[float, ...] = ()
    served_users: int = 100
    int4: bool = False
    ablation: bool = False
    seed: int = 0


def run(log: EventLog, config: EvaluateConfig, console: Console) -> Outcome:
    """Measure.

    Args:
        log: its users' ties ordered (stream.ties.spread_ties).

    Raises:
        LogError: the log is too short to be split.
        BundleError, ConfigError: the checkpoint cannot be read, or it has seen the targets.
    """

    def tell(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    given = load_checkpoint(config.checkpoint) if config.checkpoint is not None else None
    split = split_of(log, config, given)
    tell(f"{config.protocol} split: {len(split.train_log):,} events to train on, {len(split.targets):,} targets")
    if config.ablation and config.train is not None:
        return ablate(split, config.train, config.seeds, config.seed, console)
    sasrec = SasrecConfig(config.sasrec_seconds, seed=config.seed) if config.sasrec_seconds else None
    baselines = evaluate_baselines(split, sasrec, config.seed, tell)
    details: dict[str, Any] = {
        "split": _described(split),
        "baselines": tables(split, baselines.ranks, config.seed),
        "baseline_configs": baselines.notes,
        "models": [],
    }
    figures: dict[str, float | int | None] = {}
    ending = f"_{config.protocol}" + ("_100k" if config.source == "ml-100k" else "")
    measured: list[dict[str, float]] = []
    for number, (checkpoint, note) in enumerate(_models(split, config, given, console)):
        tell(f"ranking by model {number + 1}")
        first = number == 0
        model = evaluate_model(split, checkpoint, baselines, config.freshness and first, config.seed)
        measured.append(means(model.ranks.unseen))
        details["models"].append({**note, **tables(split, {"model": model.ranks}, config.seed)["model"]})
        if first:
            _first_model(split, log, config, checkpoint, model, baselines, figures, details, tell)
    for name in METRICS if measured else ():
        figures |= over_seeds(name + ending, [one[name] for one in measured])
    for baseline, ranks in baselines.ranks.items():
        figures |= {f"{baseline}_{name}{ending}": value for name, value in means(ranks.unseen).items()}
    return Outcome(figures, details)


def split_of(log: EventLog, config: EvaluateConfig, checkpoint: Checkpoint | None) -> Split:
    """The split; a checkpoint must not have been trained on its targets.

    Raises:
        LogError, ConfigError: as `run`.
    """
    if checkpoint is None:
        return time_split(log, cutoff_ms(log, config.share)) if config.protocol == "time" else last_split(log)
    if config.protocol == "time":
        return split_after(log, checkpoint, str(config.checkpoint))
    _, events = trained_on(checkpoint, log, str(config.checkpoint))
    split = last_split(log)
    if events > len(split.train_log):
        raise ConfigError(
            f"{config.checkpoint}: it was trained on {events:,} events, and without each user's last one there are "
            f"{len(split.train_log):,}: it has seen the targets; let `evaluate --protocol last` train"
        )
    return split


def trained_on(checkpoint: Checkpoint, log: EventLog, where: str) -> tuple[int, int]:
    """The time of the last event that a checkpoint was trained on, and how many there were.

    Raises:
        ConfigError: it does not say so, or its vocabulary is another one than the log's.
    """
    checkpoint.notes.vocabulary.require_prefix_of(log.vocabulary, f"this log and {where}")
    try:
        return int(checkpoint.notes.training["last_event_ms"]), int(checkpoint.notes.training["events"])
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"{where}: it does not say what it was trained on: train again") from None


def split_after(log: EventLog, checkpoint: Checkpoint, where: str) -> Split:
    """The time split whose T is the end of what a checkpoint was trained on.

    Raises:
        ConfigError: as `trained_on`; or nothing of the log comes after it.
    """
    last_event_ms, _ = trained_on(checkpoint, log, where)
    if last_event_ms >= int(log.records["timestamp_ms"].max()):
        raise ConfigError(
            f"{where}: it was trained up to the end of the log, so nothing is left to foresee: train on a part, "
            "`slipstream train LOG --share 0.9`"
        )
    return time_split(log, last_event_ms + 1)


def _models(
    split: Split, config: EvaluateConfig, given: Checkpoint | None, console: Console
) -> Iterator[tuple[Checkpoint, dict[str, Any]]]:
    """Checkpoints, and what their training came to."""
    if given is not None:
        yield given, {"training": given.notes.training}
        return
    if config.train is None:
        return
    for seed in range(config.train.seed, config.train.seed + config.seeds):
        with tempfile.TemporaryDirectory(prefix="slipstream-evaluate-") as directory:
            training = replace(config.train, seed=seed, held_out=0.0)
            made = train_with_progress(split.train_log, training, Path(directory), console)
            checkpoint = load_checkpoint(directory)
        del made["checkpoint"]
        yield checkpoint, {"seed": seed, "training": made}


def _first_model(
    split: Split,
    log: EventLog,
    config: EvaluateConfig,
    checkpoint: Checkpoint,
    model: ModelEvaluation,
    baselines: Baselines,
    figures: dict[str, float | int | None],
    details: dict[str, Any],
    tell: Tell,
) -> None:
    """What is measured on one model alone: served states and the freshness curve."""
    if config.served_users:
        served = serve(split, log, checkpoint, model.ranks, config.served_users, config.seed)
        figures["served_minus_offline"] = served.minus_offline
        details["served"] = {
            "users": served.users,
            "targets": len(served.rows),
            "hr10": served.hr10,
            "offline_hr10": served.offline_hr10,
            "same_rank": served.same_rank,
            "minus_offline_interval": served.interval(split.targets.user[served.rows], config.seed),
        }
    if config.int4:
        tell("ranking with item tables in int4")
        rounded = replace(checkpoint, weights=rounded_tables(checkpoint.weights, INT4))
        ranks = evaluate_model(split, rounded, baselines, False, config.seed).ranks
        details["int4"] = tables(split, {"model": ranks}, config.seed)["model"]
        figures["int4_hr10_loss"] = 1 - means(ranks.unseen)["hr10"] / means(model.ranks.unseen)["hr10"]
    if model.freshness is None:
        return
    details["freshness"] = model.freshness
    line = model.freshness["all"]
    for name in ("fallback_events", "fallback_seconds", "unsure_events", "unsure_seconds"):
        if line[name] is not None:
            figures[name] = line[name]
    tell(_advice(line))
    behind, hr = series(line, "seconds")
    marks = [{"freshness_ms": ms, "hr10": round(at(behind, hr, ms / 1000), 5)} for ms in config.freshness_ms]
    details["freshness_marks"] = marks
    if marks:
        figures["hr10_at_freshness"] = marks[0]["hr10"]


def _advice(line: dict[str, Any]) -> str:
    """When a ranker should go without a state, for people."""
    if line["fallback_seconds"] is not None:
        return f"a state {line['fallback_seconds']:g} s behind or more ranks no better than popularity: fall back from there on"
    if line["unsure_seconds"] is not None:
        return f"from {line['unsure_seconds']:g} s behind on, what a state adds to popularity may be chance; it never ranks worse"
    return "however far behind, states rank better than popularity: there is no age to fall back at"


def _described(split: Split) -> dict[str, Any]:
    return {
        "protocol": split.protocol,
        "cutoff_ms": split.cutoff_ms,
        "train_events": len(split.train_log),
        "targets": len(split.targets),
        "target_users": len(np.unique(split.targets.user)),
        "users": len(split.data.starts) - 1,
        "items": len(split.data.item_ids),
    }


def described(config: EvaluateConfig) -> dict[str, Any]:
    """The configuration for JSON."""
    plain = {name: value for name, value in asdict(config).items() if name not in ("train", "checkpoint")}
    train = msgspec.to_builtins(config.train, enc_hook=str) if config.train is not None else None
    return {**plain, "train": train, "checkpoint": str(config.checkpoint) if config.checkpoint else None}
