"""The root command: options of all commands, and how errors end.

Exit codes: 0 done; 1 unexpected; 2 usage or settings; 3 a program or package is missing; 4 bytes that do not keep their contract
(event log, bundle, state); 5 topics; 6 Kafka or Redis cannot be reached; 7 fenced by another worker; 8 execution provider; 9 the
oracle found a mismatch; 10 no state; 11 the disk of a store; 12 the doctor found something wrong; 130 interrupted.
docs/operations.md tells what to do about each.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from edge.log_lines import in_json
from schemas.errors import SlipstreamError
from slipstream.cli import (
    bench,
    bench_rank,
    bench_soak,
    bench_states,
    config,
    data,
    dead_letters,
    demo,
    doctor,
    evaluate,
    forget,
    model,
    models,
    size,
    stack,
    stages,
    states,
    train_ranker,
    watch,
)
from slipstream.cli.context import EXIT_INTERRUPTED, Context

logger = logging.getLogger(__name__)

app = typer.Typer(
    name="slipstream",
    help="Keeps user embeddings fresh: engagement events from Kafka become PinFM states in Redis, for rankers to cross with "
    "candidates.",
    epilog="Each option here is a setting too: SLIPSTREAM_PREFIX, or `prefix` in slipstream.toml. `slipstream config show` lists "
    "all.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"slipstream {metadata.version('slipstream-embeddings')}")
        raise typer.Exit


@app.callback()
def root(
    command: typer.Context,
    config: Annotated[
        Path | None, typer.Option(help="Settings file [default: slipstream.toml, if it is there]")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Local stack, models and reports [default: var]")] = None,
    kafka_bootstrap: Annotated[
        str | None, typer.Option(help="Kafka's host:port list [default: the local stack's]")
    ] = None,
    redis_url: Annotated[str | None, typer.Option(help="Redis URL [default: the local stack's]")] = None,
    prefix: Annotated[str | None, typer.Option(help="Begins every topic, group and key [default: slipstream]")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Model bundle [default: DATA_DIR/model]")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error [default: info]")] = None,
    log_format: Annotated[str | None, typer.Option(help="Of a stage's log: text or json [default: text]")] = None,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    command.obj = Context(
        config,
        {
            "data_dir": data_dir,
            "kafka_bootstrap": kafka_bootstrap,
            "redis_url": redis_url,
            "prefix": prefix,
            "bundle": bundle,
            "log_level": log_level,
            "log_format": log_format,
        },
    )


for module in (
    stack,
    stages,
    data,
    dead_letters,
    models,
    model,
    evaluate,
    train_ranker,
    states,
    demo,
    bench,
    bench_rank,
    bench_states,
    bench_soak,
    size,
    config,
    doctor,
    forget,
    watch,
):
    module.register(app)


def main() -> None:
    """Run the command line and end the process with a documented exit code."""
    try:
        app()
    except SlipstreamError as error:
        if in_json():
            logger.critical("%s", error)
        else:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away, as `| head` does; closing stdout again must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
