"""`slipstream bench NAME`: the figures of the README, each by one command.

The only place that imports the package `bench`, and only when one of its commands is run.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from schemas.bundle import PRESETS
from schemas.errors import ConfigError, MismatchError
from slipstream.cli.context import Context, context, interrupt_once, make_room_for, needs_extra
from slipstream.cli.stages import Json
from slipstream.stack import running

if TYPE_CHECKING:
    from bench.path import Lab
    from bench.result import Result

bench = typer.Typer(
    help="Measure it here: on a Kafka and a Redis of its own, side by side with what others offer.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    app.add_typer(bench, name="bench")


@contextmanager
def _lab(ctx: Context) -> Iterator[Lab]:
    """A Kafka and a Redis that nobody else uses, gone when the context is left."""
    from bench.path import Lab

    with interrupt_once(), tempfile.TemporaryDirectory(prefix="slipstream-bench-") as made:
        directory = Path(made)
        with running(directory / "stack", notify=ctx.say) as stack:
            yield Lab(stack, directory / "logs")


def report(ctx: Context, result: Result, json: bool) -> None:
    """The table for people on stderr; with `--json` one object as the last line on stdout."""
    ctx.console.print(result.as_table())
    if json:
        ctx.emit(result.as_json())


@bench.command("accelerators")
def _accelerators(
    command: typer.Context,
    provider: Annotated[
        list[str] | None, typer.Option(help="Only these: tensorrt, cuda, cpu [default: all that run here]")
    ] = None,
    preset: Annotated[list[str] | None, typer.Option(help="Sizes of model [default: small and medium]")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Users of a run [default: 1, 16, 64 and 256]")] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Of each user, when crossing")] = 256,
    seconds: Annotated[float, typer.Option(min=0.01, help="For each point, at least")] = 0.5,
    precision: Annotated[
        Literal["auto", "fp32", "fp16"], typer.Option(help="auto: fp32 on the CPU, fp16 above it")
    ] = "auto",
    json: Json = False,
) -> None:
    """The graphs on each execution provider of this machine: states and candidates per second, parity with the CPU, placement.

    Encoding of 256 events, appending of one to 255, and crossing, with untrained models. The CPU has one thread, as a worker.

    Examples:

      slipstream bench accelerators --json

      slipstream bench accelerators --provider cuda --preset small --batch 64
    """
    from bench.accelerators import AcceleratorsBench, run

    ctx = context(command)
    config = AcceleratorsBench(
        providers=tuple(provider or AcceleratorsBench.providers),
        presets=tuple(preset or AcceleratorsBench.presets),
        batches=tuple(batch or AcceleratorsBench.batches),
        candidates=candidates,
        seconds=seconds,
        precision=precision,
    )
    with interrupt_once(), needs_extra("train", "bench accelerators"):
        result = run(config, ctx.say)
    report(ctx, result, json)


@bench.command("chaos")
def _chaos(
    command: typer.Context,
    events: Annotated[int, typer.Option(min=10_000, help="At least so many flow")] = 1_000_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the events and of the schedule")] = 1,
    kills: Annotated[int, typer.Option(min=0, help="kill -9 of workers; other faults come on top")] = 20,
    minutes: Annotated[float, typer.Option(min=0.2, help="For the events to flow")] = 2.5,
    partitions: Annotated[int, typer.Option(min=1, help="Of each topic")] = 4,
    store: Annotated[
        Literal["memory", "rocksdb"], typer.Option(help="Where a sequence worker's tables are")
    ] = "memory",
    keep: Annotated[
        Path | None, typer.Option(help="Keep the workers' logs here [default: only if something is wrong]")
    ] = None,
    json: Json = False,
) -> None:
    """While events flow: kill -9, zombies, rebalances, a broker that dies, stands still, is full or refuses; nothing may be lost.

    Two workers of each stage on a Kafka of its own. At the end an oracle rebuilds every sequence from the raw topic and compares
    byte by byte. Exit code 9 if an event is lost, a sequence differs, or a worker ended for no reason that a fault explains.

    Examples:

      slipstream bench chaos --json

      slipstream bench chaos --events 100000 --minutes 0.7 --kills 6 --seed 3 --keep chaos-logs
    """
    from bench.chaos.run import ChaosConfig, run_chaos
    from bench.chaos.schedule import Faults

    ctx = context(command)
    config = ChaosConfig(events, 60 * minutes, seed, partitions, faults=replace(Faults(), kills=kills), store=store)
    work_dir = keep or Path(tempfile.mkdtemp(prefix="slipstream-chaos-"))
    with interrupt_once():
        outcome = run_chaos(config, work_dir, ctx.console)
    report(ctx, outcome.result, json)
    if outcome.problems:
        raise MismatchError(outcome.describe())
    if keep is None:
        shutil.rmtree(work_dir, ignore_errors=True)


@bench.command("stream")
def _stream(
    command: typer.Context,
    events: Annotated[int, typer.Option(min=1000, help="Of a throughput run")] = 1_000_000,
    users: Annotated[int, typer.Option(min=1, help="Users that they are of, each with a full sequence")] = 10_000,
    partitions: Annotated[int, typer.Option(min=1, help="Of each topic")] = 4,
    rate: Annotated[float, typer.Option(min=1, help="Events per second of the latency run")] = 1000.0,
    latency_seconds: Annotated[float, typer.Option(min=1, help="Length of the latency run")] = 60.0,
    recovery_users: Annotated[int, typer.Option(min=1, help="Users of the recovery, with 20 events each")] = 1_000_000,
    growth: Annotated[
        bool, typer.Option(help="Also how cost grows with length, users and partitions, and by compression")
    ] = True,
    contenders: Annotated[bool, typer.Option(help="Beside stock Faust and Quix Streams")] = True,
    plot: Annotated[Path | None, typer.Option(help="Write a picture, as SVG")] = None,
    json: Json = False,
) -> None:
    """Raw JSON events to the compacted changelog: cost, latency, recovery, beside stock Faust and Quix Streams.

    On a Kafka of its own, one thing after the other: about 9 minutes on two quiet cores, 4 without --growth. Quix Streams is
    installed into a virtual environment of its own, since it needs an older Kafka client.

    Examples:

      slipstream bench stream --json

      slipstream bench stream --no-growth --no-contenders

      slipstream bench stream --json --plot docs/images/stream.svg
    """
    from bench.stream import StreamBench, run

    ctx = context(command)
    if plot is not None:  # before minutes are spent
        with needs_extra("demo", "bench stream --plot"):
            from bench.plot import plot_stream
        make_room_for(plot)
    environments = ctx.settings.data_dir.absolute() / "bench"
    config = StreamBench(
        events=events,
        users=users,
        partitions=partitions,
        rate=rate,
        latency_s=latency_seconds,
        recovery_users=recovery_users,
        growth=growth,
        contenders=contenders,
    )
    with _lab(ctx) as lab:
        result = run(config, lab, environments, ctx.say)
    report(ctx, result, json)
    if plot is not None:
        plot_stream(result.as_json(), plot)


@bench.command("refresh")
def _refresh(
    command: typer.Context,
    preset: Annotated[list[str] | None, typer.Option(help="Model size; repeatable [default: small, medium]")] = None,
    users: Annotated[int | None, typer.Option(min=8, help="Of each model [default: by its size]")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Encoder processes")] = 2,
    json: Json = False,
) -> None:
    """Changelog records to states in Redis: users a second, and what a refresh costs beside encoding each time in full.

    Real encoders on a Kafka and a Redis of its own, with hot states and with states from Redis; some states are
    checked then. About 3 minutes on two quiet cores.

    Examples:

      slipstream bench refresh --json

      slipstream bench refresh --preset nano --users 500 --workers 1
    """
    from bench.refresh import RefreshBench, run

    ctx = context(command)
    presets = _presets(preset or ["small", "medium"])
    config = RefreshBench(presets, dict.fromkeys(presets, users) if users else None, workers)
    with _lab(ctx) as lab:
        result = run(config, lab, ctx.say)
    report(ctx, result, json)


@bench.command("e2e")
def _e2e(
    command: typer.Context,
    preset: Annotated[str, typer.Option(help="Model size")] = "small",
    rate: Annotated[float, typer.Option(min=1, help="Events per second")] = 1000.0,
    seconds: Annotated[float, typer.Option(min=1, help="For so long, after 5 seconds that do not count")] = 60.0,
    users: Annotated[int, typer.Option(min=1, help="Each event is of the next one")] = 4000,
    json: Json = False,
) -> None:
    """From an event's arrival in the raw topic until its user's state is readable in Redis, through all three stages.

    On a Kafka and a Redis of its own, everything on this machine. About 2 minutes.

    Examples:

      slipstream bench e2e --json

      slipstream bench e2e --rate 200 --seconds 20 --preset nano
    """
    from bench.e2e import EndToEnd, run

    ctx = context(command)
    (checked,) = _presets([preset])
    config = EndToEnd(checked, rate, seconds, users)
    with _lab(ctx) as lab:
        result = run(config, lab, ctx.say)
    report(ctx, result, json)


def _presets(names: list[str]) -> tuple[str, ...]:
    for name in names:
        if name not in PRESETS:
            raise ConfigError(f"--preset {name!r}: choose from {', '.join(PRESETS)}")
    return tuple(names)


@bench.command("tables")
def _tables(
    command: typer.Context,
    rows: Annotated[
        list[int] | None, typer.Option(min=1, help="Of a sub-table; repeatable [default: 4096, a million, ten million]")
    ] = None,
    d_model: Annotated[int, typer.Option(min=8, help="Width of an embedding")] = 128,
    tokens: Annotated[int, typer.Option(min=1, help="Of a look-up")] = 1000,
    seconds: Annotated[float, typer.Option(min=0.01, help="For each table")] = 2.0,
    json: Json = False,
) -> None:
    """Tables of items in fp16 and int4: bytes, error, and the time of a look-up, in memory and mapped from disk.

    With random weights. Ten million rows of d 128 take 2.4 GiB of memory and of disk while they are measured.

    Examples:

      slipstream bench tables --json

      slipstream bench tables --rows 4096 --rows 1000000 --d-model 256
    """
    from bench.tables import TablesBench, run

    ctx = context(command)
    config = TablesBench(rows=tuple(rows or TablesBench.rows), d_model=d_model, tokens=tokens, seconds=seconds)
    with interrupt_once():
        result = run(config, ctx.say)
    report(ctx, result, json)
