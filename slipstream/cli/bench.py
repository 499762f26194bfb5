"""`slipstream bench NAME`: the figures of the README, each by one command.

The only place that imports the package `bench`, and only when one of its commands is run.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from schemas.errors import MismatchError
from slipstream.cli.bench_group import Plot, bench, check_plot, lab, report
from slipstream.cli.context import context, interrupt_once, needs_extra
from slipstream.cli.stages import Json


def register(app: typer.Typer) -> None:
    app.add_typer(bench, name="bench")


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
    events: Annotated[
        int | None,
        typer.Option(min=10_000, help="At least so many flow [default: 100,000; a million with --no-states]"),
    ] = None,
    states: Annotated[
        bool, typer.Option(help="With encoders and Redis, to which everything happens too; without, the stream alone")
    ] = True,
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
    """While events flow: kill -9, zombies, rebalances, a broker and a Redis that die, stand still or are full; nothing is lost.

    Two workers of each stage on a Kafka and a Redis of its own. Redis is also flushed, fails over, loses its last second, drops
    states and is slow, and states are damaged. At the end an oracle rebuilds every sequence from the raw topic, and every state
    from its sequence. Exit code 9 if one differs, an event is lost, or a worker ended for no reason that a fault explains.

    Examples:

      slipstream bench chaos --json

      slipstream bench chaos --no-states --json

      slipstream bench chaos --events 30000 --minutes 0.7 --kills 6 --seed 3 --keep chaos-logs
    """
    from bench.chaos.played import ChaosConfig
    from bench.chaos.run import run_chaos
    from bench.chaos.schedule import Faults

    ctx = context(command)
    config = ChaosConfig(
        events or (100_000 if states else 1_000_000),
        60 * minutes,
        seed,
        partitions,
        faults=replace(Faults(), kills=kills, redis=1 if states else 0),
        store=store,
        states=states,
    )
    work_dir = keep or Path(tempfile.mkdtemp(prefix="slipstream-chaos-"))
    with interrupt_once(), needs_extra("train", "bench chaos"):
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
    plot: Plot = None,
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
    check_plot(plot, "bench stream")
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
    with lab(ctx) as place:
        result = run(config, place, environments, ctx.say)
    report(ctx, result, json)
    if plot is not None:
        from bench.plot import plot_stream

        plot_stream(result.as_json(), plot)


@bench.command("state")
def _state(
    command: typer.Context,
    preset: Annotated[str, typer.Option(help="Size of the model")] = "small",
    kv_heads: Annotated[list[int] | None, typer.Option(min=1, help="Repeatable [default: 4, 2, 1]")] = None,
    log: Annotated[str, typer.Option(help="ml-100k or ml-1m: what models are trained on and measured by")] = "ml-100k",
    train_seconds: Annotated[float, typer.Option(min=0, help="For each of kv-heads; 0: sizes alone")] = 60.0,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="Measure these models, instead of training; repeatable, of different kv heads"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of trainings")] = 0,
    json: Json = False,
) -> None:
    """What a user's state takes in Redis and on the wire, by kv heads and by code, and what each code costs in HR@10.

    Redis's memory is measured in one of its own. Besides the code that is stored: fp16, int8 with scales of 16 bits, values in 6
    and 4 bits, and KIVI. The loss is that of the same model when attention sees what a code leaves of keys and values.

    Examples:

      slipstream bench state --json

      slipstream bench state --log ml-1m --train-seconds 600

      slipstream bench state --log ml-1m --kv-heads 1 --checkpoint var/checkpoint
    """
    with needs_extra("cpu,train", "bench state"):
        from bench.state import StateBench, read_checkpoints, run

    ctx = context(command)
    config = StateBench(
        preset=preset,
        kv_heads=tuple(kv_heads or StateBench.kv_heads),
        log=log,
        train_seconds=train_seconds,
        checkpoints=tuple(checkpoint or ()),
        seed=seed,
    )
    given = read_checkpoints(config)
    with lab(ctx) as place:
        result = run(config, given, place.stack.redis_url, ctx.say)
    report(ctx, result, json)


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
