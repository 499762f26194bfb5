"""`slipstream topics create`, `ingest`, `sequence`, `encode`: each stage a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge.kafka import KafkaConfig
from slipstream.cli.context import Context, context, needs_extra
from stream.registry import RegistryConfig

if TYPE_CHECKING:
    from encoder.runtime import RuntimeConfig

MetricsPort = Annotated[
    int | None, typer.Option(help="Serve /metrics, /live and /ready on this port of `metrics_host`; 0 = no")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout")]

topics = typer.Typer(help="The Kafka topics.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.add_typer(topics, name="topics")
    app.command("ingest")(_ingest)
    app.command("sequence")(_sequence)
    app.command("encode")(_encode)


def kafka(ctx: Context) -> KafkaConfig:
    """The cluster of the settings."""
    return KafkaConfig(ctx.kafka_bootstrap, ctx.settings.kafka_options)


def schema_registry(ctx: Context) -> RegistryConfig | None:
    """The schema registry of the settings."""
    url = ctx.settings.schema_registry_url
    return RegistryConfig(url.get_secret_value(), ctx.settings.schema_registry_options) if url else None


def runtime_config(ctx: Context, *graphs: str) -> RuntimeConfig:
    """What the settings say that these graphs run on."""
    from encoder.runtime import RuntimeConfig

    of = ctx.settings
    return RuntimeConfig(
        of.providers, of.require_provider, of.threads, graphs=graphs, precision=of.precision, cache_dir=of.cache_dir
    )


@topics.command("create")
def _create(
    command: typer.Context,
    partitions: Annotated[int | None, typer.Option(help="Of each topic: they bound parallelism [default: 4]")] = None,
    replication_factor: Annotated[
        int | None, typer.Option(help="Replicas of each; 3 in production [default: 1]")
    ] = None,
    json: Json = False,
) -> None:
    """Create the four topics with the settings that the stages rely on. Existing ones stay as they are.

    Refuses partition counts that do not fit together (exit code 5).

    Examples:

      slipstream topics create --partitions 16 --replication-factor 3
    """
    from stream.topics import create_topics

    ctx = context(command)
    settings = ctx.settings
    made = create_topics(
        kafka(ctx), settings.names, partitions or settings.partitions, replication_factor or settings.replication_factor
    )
    if json:
        ctx.emit({"partitions": dict(made.partitions), "created": made.created, "kept": made.kept})
        return
    for name, count in made.partitions.items():
        ctx.say(f"{'created' if name in made.created else 'kept':<8} {name} ({count} partitions)")


def _ingest(command: typer.Context, metrics_port: MetricsPort = None) -> None:
    """Run an ingest worker: raw events in, packed batches out; what cannot be read becomes a dead letter.

    Run as many as you like, up to one per partition of the raw topic. SIGTERM ends it after what is under way.

    Examples:

      slipstream ingest

      SLIPSTREAM_UNKNOWN_NAMES=other slipstream ingest --metrics-port 9101

      SLIPSTREAM_FORMATS='["json","avro"]' SLIPSTREAM_SCHEMA_REGISTRY_URL=https://registry:8081 slipstream ingest
    """
    from stream.ingest import IngestConfig, run_ingest

    ctx = context(command)
    settings = ctx.settings
    ctx.log_to_stderr("ingest")
    run_ingest(
        IngestConfig(
            kafka(ctx),
            settings.names,
            settings.parser,
            metrics_port=settings.metrics_port if metrics_port is None else metrics_port,
            metrics_host=settings.metrics_host,
            traces=settings.traces,
            session_timeout_s=settings.session_timeout_ms / 1000,
            schema_registry=schema_registry(ctx),
        )
    )


def _sequence(
    command: typer.Context,
    store: Annotated[
        Literal["memory", "rocksdb"] | None,
        typer.Option(help="Where its tables are: rocksdb is for those larger than memory"),
    ] = None,
    sequence_dir: Annotated[
        Path | None, typer.Option("--dir", help="This worker's own directory, for rocksdb; keep it across restarts")
    ] = None,
    metrics_port: MetricsPort = None,
) -> None:
    """Run a sequence worker: the Faust table of each user's newest events, its changelog written in fenced transactions.

    Run as many as you like, up to one per partition. One that was paused past its session is fenced: it ends with exit code 7.

    Examples:

      slipstream sequence

      slipstream sequence --store rocksdb --dir /var/lib/slipstream/sequence-0
    """
    from stream.sequence import SequenceConfig, run_sequence

    ctx = context(command)
    settings = ctx.settings
    ctx.log_to_stderr("sequence")
    run_sequence(
        SequenceConfig(
            kafka(ctx),
            settings.names,
            capacity=settings.sequence_capacity,
            store=store or settings.sequence_store,
            store_memory_bytes=settings.sequence_store_memory_bytes,
            data_dir=sequence_dir or settings.sequence_dir,
            metrics_port=settings.metrics_port if metrics_port is None else metrics_port,
            metrics_host=settings.metrics_host,
            traces=settings.traces,
            session_timeout_s=settings.session_timeout_ms / 1000,
        )
    )


def _encode(
    command: typer.Context,
    refresh_log: Annotated[
        Path | None,
        typer.Option(help="Append a JSON line per refreshed user: when its event arrived, when its state was readable"),
    ] = None,
    metrics_port: MetricsPort = None,
) -> None:
    """Run an encoder worker: refreshes the states of the bundle's model in Redis from the changelog of sequences.

    A new model, a lost Redis and a restart are the same: it reads on from its committed offset, or from the beginning. What is
    far behind is filled beside live records, which go first; `slipstream model status` tells how far that is.

    Examples:

      slipstream encode

      slipstream --bundle models/7f3a encode --refresh-log refreshes.jsonl
    """
    with needs_extra("cpu", "encode"):
        from encoder.backfill import BackfillConfig
        from encoder.bundle import read_manifest
        from encoder.config import EncodeConfig
        from encoder.worker import run_encode

    ctx = context(command)
    settings = ctx.settings
    ctx.log_to_stderr("encode")
    trained_on = read_manifest(ctx.bundle_dir).vocabulary  # before the worker loads the rest
    trained_on.require_prefix_of(settings.vocabulary, f"this deployment's settings and {ctx.bundle_dir}")
    run_encode(
        EncodeConfig(
            kafka=kafka(ctx),
            redis_url=ctx.redis_url,
            names=settings.names,
            bundle=ctx.bundle_dir,
            runtime=runtime_config(ctx, "encode", "append"),
            state_ttl_s=settings.state_ttl_s,
            hot_cache_bytes=settings.hot_cache_bytes,
            max_batch_users=settings.max_batch_users,
            backfill=BackfillConfig(settings.backfill_from_records, settings.backfill_share, settings.backfill_run_ms),
            refresh_log=refresh_log,
            metrics_port=settings.metrics_port if metrics_port is None else metrics_port,
            metrics_host=settings.metrics_host,
            traces=settings.traces,
            session_timeout_s=settings.session_timeout_ms / 1000,
        )
    )
