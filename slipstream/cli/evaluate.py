"""`slipstream evaluate`: how good a model is, beside what one would use without it, and what freshness is worth to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer

from schemas.bundle import PRESETS
from schemas.errors import ConfigError
from slipstream.cli.bench_group import report
from slipstream.cli.context import context, needs_extra
from slipstream.cli.logs import LoadLog, reads_log, ties_spread
from slipstream.cli.stages import Json


def register(app: typer.Typer) -> None:
    app.command("evaluate")(_evaluate)


@reads_log
def _evaluate(
    command: typer.Context,
    load_log: LoadLog,
    log: str,
    protocol: Annotated[
        Literal["time", "last"], typer.Option(help="time: all events after T; last: each user's last event")
    ] = "time",
    share: Annotated[float, typer.Option(min=0.01, max=0.99, help="T is this quantile of the timestamps")] = 0.9,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Measure this checkpoint, instead of training; T is where its training ended")
    ] = None,
    settings_file: Annotated[
        Path | None, typer.Option("--config", help="TOML with fields of the training, as for `train`")
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any field of it; repeatable")
    ] = None,
    preset: Annotated[str | None, typer.Option(help=f"Size: {', '.join(PRESETS)} [default: nano]")] = None,
    train_seconds: Annotated[float | None, typer.Option(help="Time for the training [default: 60]")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Train so many models, and tell mean and spread")] = 1,
    baselines_only: Annotated[bool, typer.Option("--baselines-only", help="No model of ours")] = False,
    sasrec_seconds: Annotated[float, typer.Option(min=0, help="Train SASRec for so long beside it; 0 = no")] = 0.0,
    freshness: Annotated[bool, typer.Option("--freshness", help="Also by states that are behind: the curve")] = False,
    freshness_ms: Annotated[
        list[float] | None, typer.Option(min=0, help="A pipeline's measured freshness, marked on the curve; repeatable")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the freshness curve here, as SVG")] = None,
    served_users: Annotated[
        int, typer.Option(min=0, help="Users whose targets are ranked by served states too; 0 = none")
    ] = 100,
    int4: Annotated[bool, typer.Option("--int4", help="Also with item tables in int4, and what that costs")] = False,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Train again and again instead, each time with one switch turned")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the weights, samples and intervals")] = 0,
    json: Json = False,
) -> None:
    """Train on the first part of a log, and rank what comes next on the rest, beside popularity, item-to-item counts and SASRec.

    All items are ranked; the figures leave out those that the user has seen. With --freshness, also by states that are some
    events, or some time, behind, and from when on a ranker does better without them. Served states are compared with the model
    in full precision (served_minus_offline, in HR@10).

    Examples:

      slipstream evaluate ml-100k --protocol last --train-seconds 150

      slipstream evaluate ml-1m --train-seconds 1500 --sasrec-seconds 1500 --seeds 3 --json

      slipstream evaluate ml-100k --ablation --train-seconds 60 --seeds 3 --json

      slipstream evaluate ml-1m --checkpoint var/checkpoint --freshness --freshness-ms 35 --plot freshness.svg
    """
    from bench.result import Result
    from slipstream.train_settings import train_config

    ctx = context(command)
    flags: dict[str, object] = {"preset": preset, "max_seconds": train_seconds, "seed": seed}
    # Every later event is a target here, so a model learns to foresee all of them, unless it is told otherwise.
    as_measured = {"not_targets": ()}
    # Wrong settings first: torch and a log take their time.
    train_config(settings_file, flags, assignments or (), items=1, source=log, defaults=as_measured)
    if plot is not None:
        _check_plot(plot, freshness, baselines_only)
    if checkpoint is not None and (seeds > 1 or baselines_only):
        raise ConfigError("--checkpoint is one trained model: leave --seeds and --baselines-only out, or --checkpoint")
    if ablation and (checkpoint is not None or baselines_only or freshness):
        raise ConfigError("--ablation trains its own models: leave --checkpoint, --baselines-only and --freshness out")
    with needs_extra("cpu,train", "evaluate"):
        from slipstream.evaluation.run import EvaluateConfig, described, run

    loaded = load_log().log
    train = None
    if checkpoint is None and not baselines_only:
        items = len(np.unique(loaded.records["item_id"]))
        train = train_config(settings_file, flags, assignments or (), items=items, source=log, defaults=as_measured)
    config = EvaluateConfig(
        source=log,
        protocol=protocol,
        share=share,
        train=train,
        checkpoint=checkpoint,
        seeds=seeds,
        sasrec_seconds=sasrec_seconds,
        freshness=freshness,
        freshness_ms=tuple(freshness_ms or ()),
        served_users=served_users,
        int4=int4,
        ablation=ablation,
        seed=seed,
    )
    outcome = run(ties_spread(log, loaded, seed), config, ctx.console)
    result = Result("evaluate", outcome.figures, described(config), outcome.details)
    report(ctx, result, json)
    if plot is not None:
        from encoder.evaluation.plot import plot_freshness

        figures = outcome.figures
        counts = next(float(v or 0) for name, v in figures.items() if name.startswith("counts_hr10"))
        title = f"What freshness is worth: {log}, {protocol} split"
        plot_freshness(outcome.details["freshness"], plot, title, counts, outcome.details["freshness_marks"])
        ctx.say(f"picture in {plot}")


def _check_plot(plot: Path, freshness: bool, baselines_only: bool) -> None:
    """What would fail at the end is said at the beginning."""
    if not freshness or baselines_only:
        raise ConfigError("--plot draws the freshness curve of a model: add --freshness")
    if not plot.parent.is_dir():
        raise ConfigError(f"--plot {plot}: there is no directory {plot.parent}")
    with needs_extra("demo", "evaluate --plot"):
        import matplotlib  # noqa: F401
