"""`slipstream demo`: the whole path on real events, watched, verified and measured."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

import typer
from rich.table import Table

from schemas.names import Names
from slipstream.cli.context import Context, context, interrupt_once, needs_extra
from slipstream.cli.stages import Json
from slipstream.demo.view import figure
from slipstream.stack import running


def register(app: typer.Typer) -> None:
    app.command("demo")(_demo)


def _demo(
    command: typer.Context,
    source: Annotated[str, typer.Option(help="Event log: ml-100k or ml-1m")] = "ml-100k",
    rate: Annotated[float, typer.Option(min=1, help="Live events per second")] = 500.0,
    events: Annotated[
        int | None, typer.Option(min=1, help="Replay at most so many live [default: the last 20%]")
    ] = None,
    train_seconds: Annotated[float, typer.Option(min=1, help="Time for the training")] = 60.0,
    kill: Annotated[
        list[str] | None, typer.Option(help="Kill this stage with -9 in mid-stream and start it again; repeatable")
    ] = None,
    json: Json = False,
) -> None:
    """Kafka, Redis, a freshly trained model and three stages on real events, verified against the oracle.

    Trains on the first 80% of the log, loads them, replays the rest live with duplicates, late events and malformed messages,
    verifies every sequence and state, compares live with frozen states, and writes DATA_DIR/demo/report.html. Exit code 9 if
    anything is wrong. Ctrl-C stops everything that it started.

    Examples:

      slipstream demo

      slipstream demo --json --kill ingest --kill sequence --kill encode
    """
    with needs_extra("cpu,train,movielens,demo", "demo"):
        from slipstream.demo.run import Demo, DemoConfig

    ctx = context(command)
    settings = ctx.settings
    work_dir = settings.data_dir / "demo"
    config = DemoConfig(
        work_dir,
        source,
        train_seconds=train_seconds,
        rate=rate,
        events=events,
        kills=tuple(kill or ()),
        partitions=settings.partitions,
    )
    # Topics and keys of its own, also on a cluster that others use.
    names = Names(f"{settings.prefix}-demo-{uuid.uuid4().hex[:8]}")
    redis_url = settings.redis_url.get_secret_value() if settings.redis_url else None
    ctx.say("starting Kafka and Redis")
    with (
        interrupt_once(),
        running(
            work_dir / "stack",
            settings.kafka_bootstrap,
            redis_url,
            kafka_options=settings.kafka_options,
            notify=ctx.say,
        ) as stack,
    ):
        summary = Demo(config, stack, names, ctx.console, settings.kafka_options).run()
    _show(ctx, summary)
    if json:
        ctx.emit(summary)


def _show(ctx: Context, summary: dict[str, Any]) -> None:
    table = Table(title="Slipstream demo", show_header=False, title_justify="left")
    for name, value in summary.items():
        table.add_row(name.replace("_", " "), figure(value))
    ctx.console.print(table)
