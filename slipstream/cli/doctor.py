"""`slipstream doctor`: what this machine and this deployment run on, what is wrong with them, and what to do."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar
from urllib.parse import unquote, urlsplit

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edge.process import end_unfinished
from schemas.errors import ConfigError, SlipstreamError
from slipstream.cli.context import Context, context
from slipstream.cli.stages import Json, kafka, runtime_config

if TYPE_CHECKING:
    from slipstream.doctor.deployment import Deployment
    from slipstream.doctor.finding import Finding

T = TypeVar("T")
EXIT_UNWELL = 12
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}


def register(app: typer.Typer) -> None:
    app.command("doctor")(_doctor)


def _doctor(
    command: typer.Context,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Look at this part alone: runtime, model, kafka, redis, disk; repeatable [default: all]"),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that all checks together may take")] = 30.0,
    json: Json = False,
) -> None:
    """Look at this machine and this deployment: what it runs on and why, what is wrong, and what to do about it.

    Changes nothing: it reads topics, settings and some states, and writes one temporary file into each directory that it looks
    at. Exit code 12 if a check fails; warnings leave it 0.

    Examples:

      slipstream doctor

      slipstream doctor --only kafka --only redis --json

      slipstream doctor --only model --timeout 900    # TensorRT builds its engines at the first start
    """
    from slipstream.doctor.deployment import PARTS, probes
    from slipstream.doctor.examine import examine
    from slipstream.doctor.finding import Level

    ctx = context(command)
    if unknown := [name for name in only or () if name not in PARTS]:
        raise ConfigError(f"--only {unknown[0]}: choose from {', '.join(PARTS)}")
    logging.getLogger().addHandler(logging.NullHandler())  # findings say what the parts would log
    of = _deployment(ctx)
    findings, unfinished = examine(probes(of, [p for p in PARTS if p in (only or PARTS)]), timeout, _secrets(ctx, of))
    levels = Counter(finding.level for finding in findings)
    if json:
        ctx.emit({"healthy": not levels[Level.FAIL], "checks": findings})
    else:
        _print(findings)
    code = EXIT_UNWELL if levels[Level.FAIL] else 0
    if unfinished:
        sys.stdout.flush()
        end_unfinished(code)
    if code:
        raise typer.Exit(code)


def _deployment(ctx: Context) -> Deployment:
    from slipstream.doctor.deployment import Deployment

    settings = ctx.settings
    directories: dict[str, Path | None] = {
        "data_dir": settings.data_dir,
        "sequence_dir": settings.sequence_dir,
        "cache_dir": settings.cache_dir,
    }
    return Deployment(
        settings.names,
        settings.vocabulary,
        kafka=_or_error(lambda: kafka(ctx)),
        redis_url=_or_error(lambda: ctx.redis_url),
        bundle=_or_error(lambda: ctx.bundle_dir),
        runtime=_or_error(lambda: runtime_config(ctx, "encode", "append", "cross")),
        directories={setting: path for setting, path in directories.items() if path is not None},
        state_ttl_s=settings.state_ttl_s,
    )


def _or_error(read: Callable[[], T]) -> T | SlipstreamError:
    try:
        return read()
    except SlipstreamError as error:
        return error


def _secrets(ctx: Context, of: Deployment) -> dict[str, str]:
    """Options with the secrets that a foreign error might quote."""
    secrets = dict(ctx.settings.kafka_options)
    if isinstance(of.redis_url, str):
        with suppress(ValueError):
            secrets["redis.password"] = unquote(urlsplit(of.redis_url).password or "")
    return secrets


def _print(findings: list[Finding]) -> None:
    console = Console(highlight=False)
    table = Table("check", "", "found, and what to do", box=SIMPLE)
    for finding in findings:
        text = escape(finding.found) + (f"\n→ {escape(finding.advice)}" if finding.advice else "")
        table.add_row(finding.check, f"[{_STYLES[finding.level]}]{finding.level}[/]", text)
    console.print(table)
