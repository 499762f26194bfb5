"""`slipstream replay`: an event log sent as producers would send it; `slipstream simulate`: the same path in one process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Annotated

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edge.process import stop_on_signals
from schemas.errors import ConfigError
from schemas.event import Encoding
from schemas.names import Names
from slipstream.cli.context import Context, context, needs_extra
from slipstream.cli.logs import LoadLog, reads_log
from slipstream.cli.stages import Json, kafka
from slipstream.cli.times import time_ms
from stream.pace import AsFastAsPossible, FixedRate, Pace, ScaledTime

Wait = Annotated[
    float | None, typer.Option(min=0, help="Then wait up to so many seconds until every stage has worked it off")
]


def register(app: typer.Typer) -> None:
    app.command("replay")(_replay)
    app.command("replay-raw")(_replay_raw)
    app.command("simulate")(_simulate)


def progress_bar(ctx: Context, unit: str) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        console=ctx.console,
        disable=not ctx.console.is_terminal,
    )


def _pace(rate: float | None, speed: float | None, max_gap: float) -> Pace:
    if rate is not None and speed is not None:
        raise ConfigError("--rate and --speed are two ways to pace a replay: give one of them, or none for full speed")
    if rate is not None:
        return FixedRate(rate)
    return AsFastAsPossible() if speed is None else ScaledTime(speed, max_gap)


@reads_log
def _replay(
    command: typer.Context,
    load_log: LoadLog,
    rate: Annotated[float | None, typer.Option(help="Events per second")] = None,
    speed: Annotated[float | None, typer.Option(help="Times as fast as the log's own timestamps")] = None,
    max_gap: Annotated[float, typer.Option(help="With --speed: the longest pause, in seconds of real time")] = 1.0,
    start: Annotated[float, typer.Option(min=0, max=1, help="Begin after this share of the log")] = 0.0,
    end: Annotated[float, typer.Option(min=0, max=1, help="End after this share of the log")] = 1.0,
    duplicates: Annotated[float, typer.Option(help="Share of events sent twice")] = 0.0,
    late: Annotated[float, typer.Option(help="Share of events held back and sent later")] = 0.0,
    malformed: Annotated[float, typer.Option(help="Unreadable messages more, as a share of events")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of what is injected")] = 0,
    encoding: Annotated[Encoding, typer.Option("--format", help="Of the messages")] = "json",
    no_key: Annotated[bool, typer.Option("--no-key", help="Send without keys, instead of keyed by user")] = False,
    wait: Wait = None,
    json: Json = False,
) -> None:
    """Send an event log to the raw topic, as producers would. Full speed unless --rate or --speed is given.

    With --wait, exit code 6 if a stage is still behind then; nothing else should send meanwhile.

    Examples:

      slipstream replay ml-100k --rate 500

      slipstream replay mine.parquet --wait 60

      slipstream replay clicks.parquet --user uid --item pin --action =click --surface =home --timestamp at --timestamp-unit iso

      slipstream replay ml-1m --speed 3600 --max-gap 2 --duplicates 0.01 --malformed 0.001 --seed 7
    """
    from stream.inject import InjectConfig
    from stream.replay import ReplayConfig, ReplayReport, run_replay

    ctx = context(command)
    config = ReplayConfig(
        kafka(ctx),
        ctx.settings.names,
        _pace(rate, speed, max_gap),
        InjectConfig(duplicates, late, malformed, seed=seed),
        encoding=encoding,
        key_by_user=not no_key,
    )
    wait_if_asked = _waiter(ctx, wait)
    loaded = load_log()
    events = loaded.log[round(len(loaded.log) * start) : round(len(loaded.log) * end)]
    stop = threading.Event()
    with progress_bar(ctx, "events") as bar, stop_on_signals(stop):
        task = bar.add_task("replay", total=len(events))

        def show(report: ReplayReport) -> None:
            bar.update(task, completed=report.events_sent)

        report = run_replay(config, events, on_progress=show, stop=stop)
    if json:
        ctx.emit({**msgspec.to_builtins(report), "rows_skipped": loaded.skipped})
    else:
        ctx.say(
            f"{report.events_sent:,} events in {report.seconds:.1f} s ({report.events_per_s:,.0f} a second), with "
            f"{report.duplicates_sent:,} duplicates, {report.late_sent:,} late, {report.malformed_sent:,} malformed"
        )
    if report.stopped:
        raise KeyboardInterrupt
    wait_if_asked()


def _waiter(ctx: Context, seconds: float | None) -> Callable[[], None]:
    """Waits for the stages, if that was asked for. What it takes is looked for now, before anything is sent."""
    if seconds is None:
        return lambda: None
    from encoder.bundle import read_manifest
    from slipstream.pipeline import Pipeline

    model_id = read_manifest(ctx.bundle_dir).model_id
    return partial(Pipeline(kafka(ctx), ctx.redis_url, ctx.settings.names, model_id).wait_until_quiet, seconds)


def _replay_raw(
    command: typer.Context,
    topic: Annotated[str, typer.Argument(help="Another deployment's raw topic, on the same cluster")],
    since: Annotated[str, typer.Option(help="What arrived since then: ISO 8601, or 90s, 15m, 6h, 2d ago")],
    until: Annotated[str, typer.Option(help="And before then, likewise")],
    wait: Wait = None,
    json: Json = False,
) -> None:
    """Send another deployment's raw messages of a span of time to this one, byte for byte: an incident, replayed.

    Unreadable messages and forget requests too. `--prefix` names this deployment; examples/replay-hour tells the whole way.

    Examples:

      slipstream --prefix incident replay-raw slipstream.engagements --since 2026-01-31T10:00:00Z --until 2026-01-31T11:00:00Z

      slipstream --prefix incident replay-raw slipstream.engagements --since 90m --until 30m --wait 60
    """
    from stream.raw_replay import replay_raw

    ctx = context(command)
    wait_if_asked = _waiter(ctx, wait)
    span = time_ms("--since", since), time_ms("--until", until)
    with progress_bar(ctx, "messages") as bar:
        task = bar.add_task("replay-raw", total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        report = replay_raw(kafka(ctx), topic, ctx.settings.names, *span, on_progress=show)
    if report.removed:
        ctx.say(f"retention has removed the beginning of partitions {report.removed}: some of the span may be missing")
    if json:
        ctx.emit(msgspec.to_builtins(report))
    else:
        ctx.say(f"{report.messages:,} messages of {topic} sent to {ctx.settings.names.engagements}")
    wait_if_asked()


@reads_log
def _simulate(
    command: typer.Context,
    load_log: LoadLog,
    batch_events: Annotated[int, typer.Option(min=1, help="Events that arrive together")] = 1,
    to_redis: Annotated[
        str | None,
        typer.Option(metavar="PREFIX", help="Keep the states in Redis under this prefix, which no deployment may use"),
    ] = None,
    json: Json = False,
) -> None:
    """Run all stages on a log in one process, without Kafka: to debug, to evaluate, to test a log of one's own.

    Examples:

      slipstream simulate ml-100k --batch-events 100

      slipstream simulate mine.csv --action =view --surface =home --json
    """
    with needs_extra("cpu", "simulate"):
        from encoder.bundle import load_bundle
        from encoder.store import StateStore
        from encoder.store_memory import MemoryStateStore
        from encoder.store_redis import RedisStateStore, connect
        from slipstream.simulate import SimulateConfig, simulate

    ctx = context(command)
    if to_redis == ctx.settings.prefix:
        raise ConfigError(f"--to-redis {to_redis}: a deployment's own states live under that prefix; give another one")
    bundle = load_bundle(ctx.bundle_dir)
    store: StateStore = MemoryStateStore(bundle.layout)
    if to_redis:
        store = RedisStateStore(connect(ctx.redis_url), Names(to_redis), bundle.layout)
    loaded = load_log()
    with progress_bar(ctx, "events") as bar:
        task = bar.add_task("simulate", total=len(loaded.log))
        report = simulate(
            loaded.log,
            bundle,
            store,
            batch_events,
            SimulateConfig(capacity=ctx.settings.sequence_capacity),
            on_progress=lambda done: bar.update(task, completed=done),
        )
    if json:
        ctx.emit(msgspec.to_builtins(report))
    else:
        ctx.say(str(report))
