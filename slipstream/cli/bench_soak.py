"""`slipstream bench soak`: whether anything grows, or goes wrong, when it runs for long."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import MismatchError
from slipstream.cli.bench_group import Plot, bench, check_plot, report
from slipstream.cli.context import context, interrupt_once, needs_extra
from slipstream.cli.stages import Json


def register(app: typer.Typer) -> None:
    """Into the group `bench`, which slipstream/cli/bench.py adds to `app`."""
    bench.command("soak")(_soak)


def _soak(
    command: typer.Context,
    minutes: Annotated[float, typer.Option(min=0.1, help="For events to flow; a quarter of it is warm-up")] = 30.0,
    rate: Annotated[float, typer.Option(min=10, help="Events per second; four times that in bursts")] = 200.0,
    users: Annotated[
        int, typer.Option(min=10, help="At any moment; one after the other is forgotten and replaced")
    ] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Of the events and of the schedule")] = 1,
    fault_every: Annotated[float, typer.Option(min=5, help="Seconds from one fault to the next")] = 60.0,
    keep: Annotated[
        Path | None, typer.Option(help="Keep the workers' logs here [default: only if something is wrong]")
    ] = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """The same load for long, with a fault now and then: do memory, descriptors, threads, connections, lag or freshness drift?

    Two workers of each stage, a Kafka, a Redis and a ranker on this machine. The number of users does not change, but who they
    are does. Nothing is done to one worker of each stage, which lives from the beginning to the end: growth is that of these and
    of the ranker, after the warm-up. At the end the oracle checks every sequence and state, as `slipstream bench chaos` does.
    Exit code 9 if something is wrong; growth is told, and judged by whoever reads it.

    Examples:

      slipstream bench soak --json --plot docs/images/soak.svg

      slipstream bench soak --minutes 3 --fault-every 20 --keep soak-logs
    """
    from bench.soak.config import SoakConfig
    from bench.soak.run import run_soak

    ctx = context(command)
    check_plot(plot, "bench soak")
    config = SoakConfig(minutes, rate, users, seed, fault_every_s=fault_every)
    work_dir = keep or Path(tempfile.mkdtemp(prefix="slipstream-soak-"))
    with interrupt_once(), needs_extra("train", "bench soak"):
        outcome = run_soak(config, work_dir, ctx.console)
    report(ctx, outcome.result, json)
    if plot is not None:
        from bench.plot import plot_soak

        plot_soak(outcome.result.as_json(), plot)
    if outcome.problems:
        raise MismatchError(outcome.describe())
    if keep is None:
        shutil.rmtree(work_dir, ignore_errors=True)
