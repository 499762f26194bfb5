"""`slipstream bench rank`: what cached states cost a ranking request, and save it."""

from __future__ import annotations

from typing import Annotated

import typer

from slipstream.cli.bench_group import bench, known_presets, lab, report
from slipstream.cli.context import context, needs_extra
from slipstream.cli.stages import Json


def register(app: typer.Typer) -> None:
    """Into the group `bench`, which slipstream/cli/bench.py adds to `app`."""
    bench.command("rank")(_rank)


def _rank(
    command: typer.Context,
    preset: Annotated[
        list[str] | None,
        typer.Option(help="Model size; repeatable; the first one's states are read [default: small, medium]"),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="For each way")] = 3.0,
    naive_seconds: Annotated[
        float, typer.Option(min=0.01, help="For a request of the naive way; what is left of it is reckoned")
    ] = 5.0,
    contenders: Annotated[bool, typer.Option(help="Read beside Feast's Redis online store")] = True,
    json: Json = False,
) -> None:
    """Scoring by cached states beside encoding in the request and beside encoding each candidate; reading beside Feast.

    On a Redis of its own, with states that the encoder made. About 3 minutes on two quiet cores. Feast is installed into a
    virtual environment of its own, since it brings other versions of what we use.

    Examples:

      slipstream bench rank --json

      slipstream bench rank --preset nano --seconds 0.5 --no-contenders
    """
    from bench.rank import RankBench, run

    ctx = context(command)
    config = RankBench(
        known_presets(preset or ["small", "medium"]), seconds=seconds, naive_s=naive_seconds, contenders=contenders
    )
    environments = ctx.settings.data_dir.absolute() / "bench"
    with needs_extra("train", "bench rank"), lab(ctx) as place:
        result = run(config, place, environments, ctx.say)
    report(ctx, result, json)
