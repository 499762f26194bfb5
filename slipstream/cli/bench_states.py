"""`slipstream bench refresh`, `e2e`, `scale`, `backfill`: what states cost, and how fresh they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from schemas.errors import ConfigError, PrerequisiteError
from schemas.log import EventLog
from slipstream.cli.bench_group import Plot, bench, check_plot, known_presets, lab, report
from slipstream.cli.context import Context, context
from slipstream.cli.stages import Json
from stream.logs import read_log

#: Whose mix of refreshes is measured, if nobody says otherwise.
_LOG = "ml-1m"


def register(app: typer.Typer) -> None:
    """Into the group `bench`, which slipstream/cli/bench.py adds to `app`."""
    bench.command("refresh")(_refresh)
    bench.command("e2e")(_e2e)
    bench.command("scale")(_scale)
    bench.command("backfill")(_backfill)


def _refresh(
    command: typer.Context,
    preset: Annotated[list[str] | None, typer.Option(help="Model size; repeatable [default: small, medium]")] = None,
    users: Annotated[int | None, typer.Option(min=8, help="Of each model [default: by its size]")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Encoder processes")] = 2,
    log: Annotated[
        str | None, typer.Option(help="Also the mix of this log: ml-1m or a file [default: ml-1m, if it is installed]")
    ] = None,
    json: Json = False,
) -> None:
    """Changelog records to states in Redis: users a second, and what a refresh costs beside encoding each time in full.

    Real encoders on a Kafka and a Redis of its own: hot states and states from Redis, steady users, late events, cold users,
    windows anchored anew, and the mix that a real log makes. Some states are checked then. About 4 minutes on two quiet cores.

    Examples:

      slipstream bench refresh --json

      slipstream bench refresh --preset nano --users 500 --workers 1 --log ml-100k
    """
    from bench.refresh import RefreshBench, run

    ctx = context(command)
    presets = known_presets(preset or ["small", "medium"])
    events = _log_or_none(ctx, log)
    config = RefreshBench(
        presets, dict.fromkeys(presets, users) if users else None, workers, log=(log or _LOG) if events else None
    )
    with lab(ctx) as place:
        result = run(config, events, place, ctx.say)
    report(ctx, result, json)


def _log_or_none(ctx: Context, name: str | None) -> EventLog | None:
    """The log of this name. Of no name: the default one, or None and a line that says why."""
    try:
        return read_log(name or _LOG, ctx.settings.vocabulary)
    except PrerequisiteError as error:
        if name is not None:
            raise
        ctx.say(f"the mix of a real log is left out: {error}")
        return None


def _e2e(
    command: typer.Context,
    preset: Annotated[str, typer.Option(help="Model size")] = "small",
    rate: Annotated[float, typer.Option(min=1, help="Events per second")] = 1000.0,
    seconds: Annotated[float, typer.Option(min=1, help="For so long, after 5 seconds that do not count")] = 60.0,
    users: Annotated[int, typer.Option(min=1, help="Each event is of the next one")] = 4000,
    load: Annotated[
        bool, typer.Option(help="Also a ladder of rates up to saturation, and a burst of ten times the events")
    ] = True,
    burst_rate: Annotated[float, typer.Option(min=10, help="Events per second around the burst")] = 250.0,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """From an event's arrival in the raw topic until its user's state is readable in Redis, through all three stages.

    On a Kafka and a Redis of its own, everything on this machine: at a steady rate, at rising ones until freshness runs
    away, and through a burst. About 5 minutes, 2 with --no-load.

    Examples:

      slipstream bench e2e --json --plot docs/images/e2e.svg

      slipstream bench e2e --rate 200 --seconds 20 --preset nano --no-load
    """
    from bench.e2e import EndToEnd, run

    ctx = context(command)
    if plot is not None and not load:
        raise ConfigError("--plot draws the ladder and the burst: leave --no-load away")
    (checked,) = known_presets([preset])
    config = EndToEnd(checked, rate, seconds, users, burst_rate=burst_rate)
    check_plot(plot, "bench e2e")
    with lab(ctx) as place:
        result = run(config if load else replace(config, ladder=()), place, ctx.say)
    report(ctx, result, json)
    if plot is not None:
        from bench.plot import plot_e2e

        plot_e2e(result.as_json(), plot)


def _scale(
    command: typer.Context,
    max_users: Annotated[int, typer.Option(min=100, help="Of the largest point; fewer are quicker")] = 1_000_000,
    preset: Annotated[str, typer.Option(help="Model size")] = "nano",
    rate: Annotated[float, typer.Option(min=1, help="Events per second")] = 1000.0,
    seconds: Annotated[float, typer.Option(min=1, help="For so long at each point")] = 12.0,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """What an event costs through all three stages: a thousand to a million users, 1 to 16 partitions, 1 and 2 workers.

    On a Kafka and a Redis of its own, everything on this machine. Users have 4 to 12 events, so that a million nano states fit
    into about 6 GB. About 10 minutes, 4 with --max-users 100000.

    Examples:

      slipstream bench scale --json --plot docs/images/scale.svg

      slipstream bench scale --max-users 10000 --seconds 5
    """
    from bench.scale import ScaleBench, as_table, run

    ctx = context(command)
    check_plot(plot, "bench scale")
    (checked,) = known_presets([preset])
    users = (*(n for n in ScaleBench.users if n < max_users), max_users)
    base_users = min(ScaleBench.base_users, max_users)
    config = ScaleBench(
        checked, users, base_users, rate=rate, seconds=seconds, backlog=min(ScaleBench.backlog, base_users)
    )
    with lab(ctx) as place:
        result = run(config, place, ctx.say)
    ctx.console.print(as_table(result.details["points"]))
    report(ctx, result, json)
    if plot is not None:
        from bench.plot import plot_scale

        plot_scale(result.as_json(), plot)


def _backfill(
    command: typer.Context,
    preset: Annotated[str, typer.Option(help="Model size")] = "small",
    users: Annotated[
        int | None, typer.Option(min=2, help="Whose states are filled [default: by the size, half a minute's or more]")
    ] = None,
    rate: Annotated[float, typer.Option(min=1, help="Live events per second")] = 100.0,
    seconds: Annotated[float, typer.Option(min=1, help="For so long each time, after 5 that do not count")] = 20.0,
    json: Json = False,
) -> None:
    """An empty Redis is filled from the changelog: users a second, and how fresh live users stay meanwhile.

    Beside their freshness when nothing is filled, and when the changelog is read in its order. One encoder on a Kafka and a
    Redis of its own. About 4 minutes.

    Examples:

      slipstream bench backfill --json

      slipstream bench backfill --preset nano --users 20000 --seconds 5
    """
    from bench.backfill import run
    from bench.filling import BackfillBench

    ctx = context(command)
    (checked,) = known_presets([preset])
    config = BackfillBench(checked, users, rate=rate, seconds=seconds)
    with lab(ctx) as place:
        result = run(config, place, ctx.say)
    report(ctx, result, json)
