"""`slipstream train-ranker` and `evaluate-ranker`: a ranking model that crosses candidates with user states."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from schemas.bundle import PRESETS
from schemas.errors import ConfigError
from slipstream.cli.bench_group import report
from slipstream.cli.context import context, needs_extra
from slipstream.cli.logs import LoadLog, reads_log, ties_spread
from slipstream.cli.stages import Json

SettingsFile = Annotated[Path | None, typer.Option("--config", help="TOML: any field of the ranker's training")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any field, as in the file; repeatable")
]
MaxSeconds = Annotated[float | None, typer.Option(help="Time for each ranker's training [default: 120]")]
MaxSteps = Annotated[int | None, typer.Option(help="Steps of each ranker's training [default: as time allows]")]


def register(app: typer.Typer) -> None:
    app.command("train-ranker")(_train_ranker)
    app.command("evaluate-ranker")(_evaluate_ranker)


@reads_log
def _train_ranker(
    command: typer.Context,
    load_log: LoadLog,
    log: str,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="PinFM to begin with; T is where its training ended [default: DATA_DIR/checkpoint]"),
    ] = None,
    content: Annotated[
        Path | None, typer.Option(help="Content embeddings of items: .npz with `ids` (n,) and `vectors` (n, k)")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Ranker's directory [default: DATA_DIR/ranker]")] = None,
    settings_file: SettingsFile = None,
    assignments: Assignments = None,
    max_seconds: MaxSeconds = None,
    max_steps: MaxSteps = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, batches and samples [default: 0]")] = None,
    json: Json = False,
) -> None:
    """Train a ranker together with its PinFM on an event log, and export both: a ranker's directory, and a bundle.

    The bundle is a model of its own: encoders must run it (see `model activate`) before rankers can read its states. The ranker
    is measured on the requests after T, with states and without. docs/ranking.md lists every field and figure.

    Examples:

      slipstream train-ranker ml-100k --max-seconds 60

      slipstream train-ranker mine.parquet --user uid --item pin --content graphsage.npz --config ranker.toml

      slipstream train-ranker ml-1m --checkpoint var/checkpoint --set learnable_token=false --json
    """
    from slipstream.ranker_settings import ranker_config

    ctx = context(command)
    # Wrong settings first: torch and a log take their time.
    config = ranker_config(
        settings_file, {"max_seconds": max_seconds, "max_steps": max_steps, "seed": seed}, assignments or ()
    )
    with needs_extra("cpu,train", "train-ranker"):
        from encoder.checkpoint import load_checkpoint
        from ranker.head.content import load_content
        from slipstream.evaluation.run import split_after
        from slipstream.ranker_training import save_ranker, train_and_measure

    begin = checkpoint or ctx.settings.data_dir / "checkpoint"
    saved = load_checkpoint(begin)
    loaded = load_log().log
    split = split_after(ties_spread(log, loaded, config.seed), saved, str(begin))
    vectors = None if content is None else load_content(content, split.data.item_ids)
    ranker, tasks, made = train_and_measure(split, saved, config, vectors, ctx.console)
    directory = out or ctx.settings.data_dir / "ranker"
    made |= save_ranker(
        directory, ranker, split, saved, config, tasks, made, ctx.settings.data_dir, ctx.settings.bundle
    )
    if json:
        ctx.emit(made)
    else:
        for name, value in made.items():
            ctx.say(f"{name}: {value}")


@reads_log
def _evaluate_ranker(
    command: typer.Context,
    load_log: LoadLog,
    log: str,
    settings_file: SettingsFile = None,
    assignments: Assignments = None,
    max_seconds: MaxSeconds = None,
    max_steps: MaxSteps = None,
    preset: Annotated[str | None, typer.Option(help=f"Size of the PinFM: {', '.join(PRESETS)} [default: nano]")] = None,
    pretrain_config: Annotated[
        Path | None, typer.Option(help="TOML with fields of the PinFM's own training, as for `train`")
    ] = None,
    pretrain_seconds: Annotated[float | None, typer.Option(help="Time for it [default: 60]")] = None,
    pretrain_steps: Annotated[int | None, typer.Option(help="Steps of it [default: as time allows]")] = None,
    row: Annotated[list[str] | None, typer.Option(help="Only this row; repeatable [default: all]")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each row")] = 3,
    seed: Annotated[int, typer.Option(help="The first of them")] = 0,
    share: Annotated[float, typer.Option(min=0.01, max=0.99, help="T is this quantile of the timestamps")] = 0.9,
    jobs: Annotated[int, typer.Option(min=1, help="Trainings side by side, a process each")] = 1,
    json: Json = False,
) -> None:
    """Measure what user states, their fusion and each part of the fine-tuning are worth to a ranker.

    For each seed a PinFM is trained on what comes before T, then a ranker for each row of the table, from it. A tenth of the
    items is withheld from all of it, and ranked as new ones. docs/ranking.md says what the figures mean.

    Examples:

      slipstream evaluate-ranker ml-100k --pretrain-seconds 60 --max-seconds 60 --json

      slipstream evaluate-ranker ml-1m --pretrain-steps 3000 --max-steps 1500 --jobs 16 --json

      slipstream evaluate-ranker ml-100k --row default --row no_states --seeds 1
    """
    from bench.result import Result
    from slipstream.ranker_settings import ranker_config
    from slipstream.train_settings import train_config

    ctx = context(command)
    # Wrong settings first: torch and a log take their time.
    ranker = ranker_config(
        settings_file, {"max_seconds": max_seconds, "max_steps": max_steps, "seed": seed}, assignments or ()
    )
    flags: dict[str, object] = {
        "preset": preset,
        "max_seconds": pretrain_seconds,
        "max_steps": pretrain_steps,
        "device": ranker.device,
    }
    train_config(pretrain_config, flags, (), items=1, source=log)
    with needs_extra("train", "evaluate-ranker"):
        from slipstream.ranker_ablation import ROWS, AblationConfig, ablate_ranker, described

    unknown = sorted(set(row or ()) - set(ROWS))
    if unknown:
        raise ConfigError(f"--row {unknown[0]}: there are {', '.join(ROWS)}")
    loaded = load_log().log
    items = len(np.unique(loaded.records["item_id"]))
    config = AblationConfig(
        ranker=ranker,
        pretrain=train_config(pretrain_config, flags, (), items=items, source=log),
        rows=tuple(name for name in ROWS if not row or name in row),
        seeds=seeds,
        share=share,
        jobs=jobs,
    )
    outcome = ablate_ranker(ties_spread(log, loaded, seed), config, ctx.say)
    result = Result("evaluate-ranker", outcome.figures, described(config), outcome.details)
    report(ctx, result, json)
