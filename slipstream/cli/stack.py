"""`slipstream up`, `down`, `status`: the local stack."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from slipstream.cli.context import context, interrupt_once
from slipstream.stack import PartStatus, down, status, up


def register(app: typer.Typer) -> None:
    app.command("up")(_up)
    app.command("down")(_down)
    app.command("status")(_status)


def _up(command: typer.Context) -> None:
    """Start Kafka and Redis: the given addresses, else Docker, else Java and Maven and a redis-server.

    What runs already is kept. Other commands find them through the data directory.

    Examples:

      slipstream up

      slipstream --data-dir /tmp/try up
    """
    ctx = context(command)
    settings = ctx.settings
    redis_url = settings.redis_url.get_secret_value() if settings.redis_url else None
    with interrupt_once():  # SIGTERM too leaves nothing half started
        stack = up(
            settings.data_dir,
            settings.kafka_bootstrap,
            redis_url,
            kafka_options=settings.kafka_options,
            notify=ctx.say,
        )
    ctx.say(f"Kafka at {stack.kafka_bootstrap}, Redis ready; stop them with `slipstream down`")


def _down(command: typer.Context) -> None:
    """Stop what `slipstream up` started in the data directory. Its data stays.

    Examples:

      slipstream down
    """
    ctx = context(command)
    if not down(ctx.settings.data_dir, notify=ctx.say):
        ctx.say(f"nothing that `slipstream up` started runs in {ctx.settings.data_dir}")


def _status(
    command: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """Whether Kafka and Redis answer, where they are and where they log. Exit code 6 if one does not answer.

    Examples:

      slipstream status --json
    """
    ctx = context(command)
    settings = ctx.settings
    found = status(
        settings.data_dir,
        settings.kafka_bootstrap,
        settings.redis_url.get_secret_value() if settings.redis_url else None,
    )
    if json:
        ctx.emit({"healthy": found.healthy, "kafka": _as_json(found.kafka), "redis": _as_json(found.redis)})
    else:
        for part in (found.kafka, found.redis):
            started = part.started_at_ms
            since = f" since {datetime.fromtimestamp(started / 1000, UTC):%Y-%m-%d %H:%M:%S}Z" if started else ""
            answers = "answers" if part.reachable else f"does not answer: {part.detail}"
            ctx.say(f"{part.name} ({part.how or 'not started'}) at {part.address or 'no address'}{since}: {answers}")
            if part.log:
                ctx.say(f"  log: {part.log}")
    if not found.healthy:
        raise typer.Exit(6)


def _as_json(part: PartStatus) -> dict[str, Any]:
    return {
        "how": part.how,
        "address": part.address,
        "running": part.running,
        "reachable": part.reachable,
        "detail": part.detail,
        "pid": part.pid,
        "started_at_ms": part.started_at_ms,
        "log": str(part.log) if part.log else None,
    }
