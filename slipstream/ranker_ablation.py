"""What states, their fusion and each part of the fine-tuning are worth to a ranker: the same budget again and again, each time
with one switch turned.

A random tenth of the items is withheld: their events before T are taken out of the log, as if they were first seen after it. No
training knows them, that of the PinFM included; how they rank among each other is what `new_items_...` says. Content embeddings
are learned from all events before T, theirs too: a stand-in for what knows a new item from elsewhere, such as a graph embedding.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoder.checkpoint import load_checkpoint
from encoder.evaluation.protocol import Split, cutoff_ms, time_split
from encoder.training import TrainConfig, train
from ranker.head.config import RankerConfig
from ranker.head.content import co_engagement
from ranker.head.evaluate import choose, figures, scores
from ranker.head.places import places_in
from ranker.head.training import train_ranker
from schemas.errors import LogError
from schemas.log import EventLog
from slipstream.evaluation.outcome import Outcome, over_seeds
from slipstream.ranker_training import make_requests, new_ranker, tasks_of


class Row(NamedTuple):
    """Fields of RankerConfig that differ from the default; `content`: with content embeddings."""

    changes: Mapping[str, Any]
    content: bool = False


ROWS: Mapping[str, Row] = {
    "no_states": Row({"fusion": "none"}),
    "late_fusion": Row({"fusion": "late"}),
    "early_fusion": Row({"fusion": "early"}),
    "default": Row({}),
    "content": Row({}, content=True),
    "no_token": Row({"learnable_token": False}),
    "no_cir": Row({"random_candidates": 0.0}),
    "no_idd": Row({"age_dropout": ()}),
    "no_module_loss": Row({"module_loss": 0.0}),
    "frozen": Row({"module_rate": 0.0}),
}
#: What `new_items_...` compares: name there -> row.
NEW_ITEMS = {"no_token": "no_token", "token": "default", "token_content": "content"}
#: Figures of each row; what new items are measured by.
_METRICS, _NEW_METRICS = ("auc_save", "auc_save_shown", "hr3_save"), ("auc_save", "hr3_save")


@dataclass(frozen=True)
class AblationConfig:
    """
    Attributes:
        pretrain: of the PinFM, once for each seed.
        rows: names of ROWS.
        share: T is this quantile of the timestamps.
        withheld: share of the items that are new after T.
        content_width: k.
        jobs: trainings side by side, each in a process of its own; 1: one after the other, in this one.
    """

    ranker: RankerConfig
    pretrain: TrainConfig
    rows: tuple[str, ...] = tuple(ROWS)
    seeds: int = 3
    share: float = 0.9
    withheld: float = 0.1
    content_width: int = 32
    jobs: int = 1


def ablate_ranker(log: EventLog, config: AblationConfig, tell: Callable[[str], None]) -> Outcome:
    """Train and measure each row with the seeds `ranker.seed` and up.

    Args:
        log: its users' ties ordered (stream.ties.spread_ties).

    Returns:
        `figures`: of each row `<row>_<metric>` and its standard deviation over seeds `..._spread`; `new_items_<metric>_<name>`
        for the names of NEW_ITEMS, and what chance gets; `details`: every run.

    Raises:
        LogError: the log is too short to be split.
    """
    at_ms = cutoff_ms(log, config.share)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in config.rows}
    with tempfile.TemporaryDirectory(prefix="slipstream-ranker-") as directory:
        seeds = range(config.ranker.seed, config.ranker.seed + config.seeds)
        trained = [_Seed(log, at_ms, config, seed, Path(directory) / str(seed)) for seed in seeds]
        for one, seconds in zip(trained, _each(config.jobs, _pretrain, trained), strict=True):
            tell(
                f"seed {one.seed}: a PinFM trained for {seconds:.0f} s on what is before T, without the withheld items"
            )
        jobs = [(one, name) for name in config.rows for one in trained]
        for (one, name), run in zip(jobs, _each(config.jobs, _run, jobs), strict=True):
            tell(f"{name}, seed {one.seed}: {run['steps']} steps, HR@3 of saves {run['hr3_save']:.4f}")
            runs[name].append(run)
    found: dict[str, float | int | None] = {}
    for name in config.rows:
        for metric in _METRICS:
            found |= over_seeds(f"{name}_{metric}", [run[metric] for run in runs[name]])
    for name, row in NEW_ITEMS.items():
        for metric in _NEW_METRICS if row in runs else ():
            found |= over_seeds(f"new_items_{metric}_{name}", [run[f"new_{metric}"] for run in runs[row]])
    found["new_items_auc_save_chance"] = 0.5
    found["new_items_hr3_save_chance"] = 3 / (config.ranker.eval_sampled + 1)
    changes = {name: {**ROWS[name].changes, "content": ROWS[name].content} for name in config.rows}
    return Outcome(found, {"rows": {name: {"changes": changes[name], "runs": runs[name]} for name in config.rows}})


def described(config: AblationConfig) -> dict[str, Any]:
    """The configuration for JSON."""
    return asdict(config)


class _Seed(NamedTuple):
    """What the trainings of one seed share. `directory`: of the PinFM's checkpoint."""

    log: EventLog
    at_ms: int
    config: AblationConfig
    seed: int
    directory: Path

    def withheld_ids(self) -> NDArray[np.int64]:
        ids = np.unique(self.log.records["item_id"])
        return np.random.default_rng(self.seed).choice(ids, round(len(ids) * self.config.withheld), replace=False)

    def split(self) -> Split:
        """The log as if the withheld items had first been seen after T."""
        records = self.log.records
        kept = (records["timestamp_ms"] >= self.at_ms) | ~np.isin(records["item_id"], self.withheld_ids())
        return time_split(
            EventLog(self.log.users, self.log.user_index[kept], records[kept], self.log.vocabulary), self.at_ms
        )

    def content(self, item_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """`(m, k)`, from the whole log before T."""
        before = self.log.records["timestamp_ms"] < self.at_ms
        items = self.log.records["item_id"][before]
        place, known = places_in(item_ids, items)
        users = self.log.user_index[before][known].astype(np.int64)
        return co_engagement(users, place[known], len(item_ids), self.config.content_width, self.seed)


def _pretrain(one: _Seed) -> float:
    threads = one.config.pretrain.threads or _threads(min(one.config.jobs, one.config.seeds))
    config = replace(one.config.pretrain, seed=one.seed, held_out=0.0, threads=threads)
    return train(one.split().train_log, config, one.directory).seconds


def _run(job: tuple[_Seed, str]) -> dict[str, Any]:
    """One training of one row: `seed`, `steps`, `loss`, the figures of known items, and of new ones as `new_...`."""
    one, name = job
    row, split, checkpoint = ROWS[name], one.split(), load_checkpoint(one.directory)
    config = replace(one.config.ranker, **row.changes, seed=one.seed)
    config = replace(config, threads=config.threads or _threads(one.config.jobs))
    tasks = tasks_of(config, split)
    content = one.content(split.data.item_ids) if row.content else None
    requests = make_requests(split, checkpoint, tasks, content)
    ranker = new_ranker(checkpoint, config, tasks, content)
    trained = train_ranker(ranker, requests, config)
    result: dict[str, Any] = {"seed": one.seed, "steps": trained.step, "loss": trained.loss}
    new = np.isin(split.data.item_ids, one.withheld_ids())
    for kind, among in (("", None), ("new_", new)):
        measured = choose(split, requests, config.eval_requests, config.eval_sampled, one.seed, among)
        values = figures(split, measured, scores(ranker, requests, measured), tasks)
        result |= {kind + metric: value for metric, value in values.items()}
        result[f"{kind}requests"] = len(measured.events)
    missing = [kind + metric for kind in ("", "new_") for metric in _NEW_METRICS if kind + metric not in result]
    if missing:
        raise LogError(f"after T nothing was saved that {missing[0]} could be measured on: lower --share")
    return result


def _threads(jobs: int) -> int | None:
    """Of each of several processes side by side."""
    return max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None


def _each(jobs: int, work: Callable[[Any], Any], on: list[Any]) -> Iterator[Any]:
    """Results in the order of `on`."""
    if jobs == 1:
        yield from map(work, on)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, on)
