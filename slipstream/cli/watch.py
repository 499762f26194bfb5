"""`slipstream watch`: the deployment live, in the terminal or as a page."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import ConfigError
from slipstream.cli.context import Context, context, needs_extra
from slipstream.cli.stages import kafka

if TYPE_CHECKING:
    from slipstream.watch.watcher import Watcher

LINE_EVERY_S = 5.0


def register(app: typer.Typer) -> None:
    app.command("watch")(_watch)


def _watch(
    command: typer.Context,
    web: Annotated[bool, typer.Option("--web", help="Serve it as a page instead")] = False,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Of the page; 0 = any that is free")] = 8765,
    host: Annotated[str, typer.Option(help="Address that the page listens on")] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name that browsers may reach the page by, beside localhost; repeatable")
    ] = None,
    titles: Annotated[
        Path | None, typer.Option(help="Titles of items for the page: CSV or TSV with the columns item_id and title")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object a second on stdout")] = False,
) -> None:
    """Watch freshness, lag, throughput and dead letters live, until Ctrl-C. It only reads, and joins no consumer group.

    With --web it is a page, which shows a user's sequence, state and top items too, and marks what changes. Whoever reaches its
    port can look users up: it listens on this machine alone unless --host says otherwise. docs/watch.md says what one sees.

    Examples:

      slipstream watch

      slipstream watch --web

      slipstream watch --web --port 9000 --titles items.tsv
    """
    ctx = context(command)
    if web and json:
        raise ConfigError("--web and --json are two ways to watch: give one of them")
    with _watcher(ctx, titles if web else None) as watcher:
        if web:
            with needs_extra("web", "watch --web"):
                from slipstream.watch.server import LOCAL, serve

            def ready(url: str) -> None:
                ctx.say(f"{url} shows {ctx.settings.prefix}; Ctrl-C ends it")
                if host not in LOCAL:
                    ctx.say("there is no login: whoever reaches this address can look users up")

            serve(watcher, host, port, allow_host or (), ready)
        elif json:
            _print_json(ctx, watcher)
        else:
            _draw(ctx, watcher)


def _watcher(ctx: Context, titles: Path | None) -> Watcher:
    from encoder.bundle import load_bundle
    from slipstream.item_names import read_item_names
    from slipstream.watch.states import States
    from slipstream.watch.titles import read_titles
    from slipstream.watch.user import Shelf
    from slipstream.watch.watcher import Watcher

    settings = ctx.settings
    # Without one everything but recommendations is there.
    bundle = load_bundle(settings.bundle_dir) if settings.bundle_dir.is_dir() else None
    states = States(ctx.redis_url, settings.names, bundle, settings.stale_after_ms or None)
    names = {**read_item_names(settings.item_names), **(read_titles(titles) if titles else {})}
    shelf = Shelf(bundle, bundle.manifest.vocabulary if bundle else settings.vocabulary, names)
    return Watcher(kafka(ctx), settings.names, states, shelf)


def _print_json(ctx: Context, watcher: Watcher) -> None:
    while True:
        time.sleep(1)
        ctx.emit(watcher.snapshot())


def _draw(ctx: Context, watcher: Watcher) -> None:
    from rich.live import Live

    from slipstream.watch.view import line, render

    if not ctx.console.is_terminal:
        while True:
            time.sleep(LINE_EVERY_S)
            ctx.say(line(watcher.snapshot()))
    with Live(console=ctx.console, auto_refresh=False) as live:
        while True:
            live.update(render(watcher.snapshot()), refresh=True)
            time.sleep(1)
