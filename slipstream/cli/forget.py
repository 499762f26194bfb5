"""`slipstream forget`: a user's right to be forgotten, carried out by the stages and proven."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from schemas.errors import MismatchError, UnavailableError
from slipstream.cli.context import Context, context, needs_extra
from slipstream.cli.stages import Json, kafka

_LOOK_S = 0.05


def register(app: typer.Typer) -> None:
    app.command("forget")(_forget)


def _forget(
    command: typer.Context,
    user: Annotated[str, typer.Argument(help="User id, as producers send it")],
    until_ms: Annotated[
        int | None, typer.Option(help="Forget what happened until then, Unix ms, inclusive [default: now]")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until it is gone from the changelog and from Redis")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait, at most")] = 60.0,
    json: Json = False,
) -> None:
    """Forget a user: the sequence and the states go; a late duplicate of an old event does not bring them back for 7 days.

    Raw events stay in their topic, and in the dead letters, until those topics' retention takes them.

    Examples:

      slipstream forget u-17 --wait

      slipstream forget u-17 --until-ms 1767225600000 --json
    """
    from stream.forget import request_forget, wait_until_forgotten

    ctx = context(command)
    before_ms = int(time.time() * 1000) if until_ms is None else until_ms
    deadline = time.monotonic() + timeout
    request = request_forget(kafka(ctx), ctx.settings.names, user, before_ms)
    done: dict[str, object] = {"user": user, "forgotten_before_ms": before_ms, "gone": False}
    if wait:
        offset = wait_until_forgotten(kafka(ctx), ctx.settings.names, request, timeout)
        _wait_for_redis(ctx, user, request.partition, offset, deadline)
        done |= {"gone": True, "partition": request.partition, "offset": offset}
    if json:
        ctx.emit(done)
    elif wait:
        ctx.say(f"forgotten: {user}, in the changelog at partition {request.partition}, offset {offset}, and in Redis")
    else:
        ctx.say(f"requested: forget {user}; the stages carry it out when they come to it (--wait waits)")


def _wait_for_redis(ctx: Context, user: str, partition: int, offset: int, deadline: float) -> None:
    """Until the bundle's encoder is past the changelog's record, and Redis holds nothing older."""
    with needs_extra("cpu", "forget --wait"):
        from encoder.bundle import load_bundle
        from ranker.reader import StateReader
        from ranker.rows import Status
    from stream.group_offsets import committed_offsets

    bundle, names, cluster = load_bundle(ctx.bundle_dir), ctx.settings.names, kafka(ctx)
    reader = StateReader(ctx.redis_url, bundle, names)
    group, place = names.encoder_group(bundle.model_id), (names.sequences, partition)
    while committed_offsets(cluster, group, [place]).get(place, 0) <= offset:
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"user {user!r} is forgotten in the changelog (partition {partition}, offset {offset}), but group {group} has "
                "not come to it: does an encoder of this model run, and what is its lag?"
            )
        time.sleep(_LOOK_S)
    (row,) = reader.read([user])
    if row.status is Status.NOT_FOUND or (row.state is not None and row.state.header.fence.offset > offset):
        return  # or of what the user did since
    raise MismatchError(
        f"user {user!r}: Redis holds a state ({row.status}) although the encoder is past partition {partition}, offset {offset}: "
        f"look at it with `slipstream state show {user}`"
    )
