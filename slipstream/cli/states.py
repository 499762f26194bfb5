"""`slipstream state show`, `rank`, `verify`: what is in Redis, what a ranker makes of it, and whether it is right."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, cast

import msgspec
import typer
from rich.table import Table

from schemas.errors import MismatchError
from slipstream.cli.context import Context, context, needs_extra
from slipstream.cli.stages import Json, kafka, runtime_config, schema_registry
from slipstream.item_names import given_item, read_item_names
from stream.columns import ItemIds

User = Annotated[str, typer.Argument(help="User id, as producers send it")]

EXIT_NO_STATE = 10
#: A person would rather wait than be told that Redis is slow.
DEADLINE_MS = 5000
#: Likewise for the schema registry.
PATIENCE_S = 20.0
SHOWN_MISMATCHES = 20

state = typer.Typer(help="States in Redis.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.add_typer(state, name="state")
    app.command("rank")(_rank)
    app.command("verify")(_verify)


@state.command("show")
def _show(
    command: typer.Context,
    user: User,
    events: Annotated[int, typer.Option(min=0, help="Newest events to list")] = 10,
    json: Json = False,
) -> None:
    """Show a user's state: how fresh it is, what it reflects, its newest events. Exit code 10 if there is none.

    Examples:

      slipstream state show 196

      slipstream state show 196 --events 256 --json
    """
    from encoder.bundle import load_bundle
    from ranker.reader import StateReader

    ctx = context(command)
    settings = ctx.settings
    bundle = load_bundle(ctx.bundle_dir)
    reader = StateReader(ctx.redis_url, bundle, settings.names, deadline_ms=DEADLINE_MS)
    (row,) = reader.read([user], settings.stale_after_ms or None)
    shown: dict[str, Any] = {"user": user, "model_id": bundle.model_id, "status": str(row.status), "age_ms": row.age_ms}
    listed: list[dict[str, Any]] = []
    if row.why:
        shown["why"] = row.why
    if row.state is not None:
        header, vocabulary = row.state.header, bundle.manifest.vocabulary
        names = read_item_names(settings.item_names)
        shown |= {
            "length": header.length,
            "capacity": header.capacity,
            "bytes": row.state.value_bytes,
            "newest_event_ms": header.newest_event_ms,
            "arrived_ms": header.arrived_ms,
            "encoded_ms": header.encoded_ms,
            "fence": {"partition": header.fence.partition, "offset": header.fence.offset},
        }
        listed = [
            {
                "timestamp_ms": timestamp_ms,
                "item_id": item_id,
                "item": names.get(item_id, str(item_id)),
                "action": vocabulary.action_name(action),
                "surface": vocabulary.surface_name(surface),
            }
            for timestamp_ms, item_id, action, surface in row.state.events[len(row.state.events) - events :].tolist()
        ]
    if json:
        ctx.emit({**shown, "events": listed})
    else:
        _print_state(ctx, shown, listed)
    if row.state is None:
        raise typer.Exit(EXIT_NO_STATE)


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}.{ms % 1000:03d}Z"


def _print_state(ctx: Context, shown: dict[str, Any], listed: list[dict[str, Any]]) -> None:
    for name, value in shown.items():
        text = f"{value} ({_time(value)})" if name.endswith("_ms") and name != "age_ms" and value else str(value)
        ctx.say(f"{name:<16} {text}")
    if listed:
        table = Table("time", "item", "action", "surface", title="newest events", title_justify="left")
        for event in reversed(listed):
            table.add_row(_time(event["timestamp_ms"]), event["item"], event["action"], event["surface"])
        ctx.console.print(table)


def _rank(
    command: typer.Context,
    user: User,
    k: Annotated[int, typer.Option("-k", min=1, help="Items to print")] = 10,
    candidates: Annotated[int, typer.Option(min=1, help="Items retrieved by the user embedding and crossed")] = 256,
    item: Annotated[
        list[str] | None, typer.Option(help="Score these items instead of retrieving, by id or string id; repeatable")
    ] = None,
    keep_seen: Annotated[bool, typer.Option("--keep-seen", help="Do not leave out what the user engaged with")] = False,
    json: Json = False,
) -> None:
    """Rank items for a user: read the state, cross candidates with it by DCAT, print the best.

    A user without a state gets the most popular items, crossed without context.

    Examples:

      slipstream rank 196

      slipstream rank 196 --item 50 --item 181 --json

      SLIPSTREAM_ITEM_NAMES=items.txt slipstream rank u-17 --item pin-9
    """
    with needs_extra("cpu", "rank"):
        import numpy as np

        from encoder.bundle import load_bundle
        from ranker.dcat import Dcat
        from ranker.rank import Catalogue, rank_given, rank_row
        from ranker.reader import StateReader

    ctx = context(command)
    settings = ctx.settings
    names = read_item_names(settings.item_names)
    bundle = load_bundle(ctx.bundle_dir)
    reader = StateReader(ctx.redis_url, bundle, settings.names, deadline_ms=DEADLINE_MS)
    dcat = Dcat.of(bundle, runtime_config(ctx, "cross"))
    (row,) = reader.read([user], settings.stale_after_ms or None)
    if item:
        item_ids = cast(ItemIds, settings.log_columns.get("item_ids", "auto"))
        ranking = rank_given(row, dcat, np.array([given_item(text, item_ids) for text in item], np.int64), k)
    else:
        ranking = rank_row(row, dcat, Catalogue.of(bundle), k, candidates, exclude_seen=not keep_seen)
    if json:
        items = [{**entry._asdict(), "item": names.get(entry.item_id, str(entry.item_id))} for entry in ranking.items]
        ctx.emit({**msgspec.to_builtins(ranking._asdict()), "items": items})
        return
    ctx.say(f"user {user}: {ranking.status}, {ranking.length} events, age {ranking.age_ms} ms {ranking.why}")
    table = Table("", "item", "score by DCAT", f"by {ranking.retrieval}")
    for place, entry in enumerate(ranking.items, 1):
        name = names.get(entry.item_id, str(entry.item_id))
        table.add_row(str(place), name, f"{entry.score:+.4f}", f"{entry.retrieval_score:.4f}")
    ctx.console.print(table)


def _verify(
    command: typer.Context,
    sample: Annotated[int | None, typer.Option(min=1, help="Check the states of so many users [default: all]")] = None,
    seed: Annotated[int, typer.Option(help="Of the sample")] = 0,
    repair: Annotated[bool, typer.Option("--repair", help="Make wrong states anew from their sequences")] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until the stages have caught up")] = 60.0,
    json: Json = False,
) -> None:
    """Check every sequence against the raw topic, and states against their sequences and from-scratch encodings.

    Waits until the stages have caught up: what is under way looks wrong. Exit code 9 if anything is wrong, and not repaired.
    Encoders may run while states are repaired: what they write meanwhile stays.

    Examples:

      slipstream verify

      slipstream verify --sample 1000 --json

      slipstream verify --repair --wait 0
    """
    with needs_extra("cpu", "verify"):
        from encoder.bundle import load_bundle
        from encoder.oracle import ACROSS_PROVIDERS
        from encoder.store_redis import RedisStateStore, connect
        from slipstream.pipeline import Pipeline
        from slipstream.verify import verify
    from stream.registry import framed_oracle

    ctx = context(command)
    settings = ctx.settings
    bundle = load_bundle(ctx.bundle_dir)
    behind = Pipeline(kafka(ctx), ctx.redis_url, settings.names, bundle.model_id).still_behind(wait)
    report = verify(
        kafka(ctx),
        settings.names,
        bundle,
        RedisStateStore(connect(ctx.redis_url), settings.names, bundle.layout),
        settings.parser,
        sample,
        seed,
        notify=ctx.say,
        framed=framed_oracle(schema_registry(ctx), settings.formats, PATIENCE_S),
        capacity=settings.sequence_capacity,
        repair_states=repair,
        tolerance=None if settings.providers == ("cpu",) else ACROSS_PROVIDERS,
    )
    if behind:
        report.note = "; ".join(
            filter(None, (report.note, f"the stages had not caught up, which looks wrong too: {behind}"))
        )
    if report.note:
        ctx.say(report.note)
    if json:
        ctx.emit(msgspec.to_builtins(report))
    if report.mismatches:
        listed = "\n  ".join(f"{wrong.user}: {wrong.what}" for wrong in report.mismatches[:SHOWN_MISMATCHES])
        raise MismatchError(f"{len(report.mismatches)} mismatches, the first of them:\n  {listed}")
