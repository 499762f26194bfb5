"""What the two stages are told: frozen, checked once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edge.kafka import KafkaConfig
from edge.tracing import TraceConfig
from schemas.errors import ConfigError
from schemas.event import ParserConfig
from schemas.names import Names
from schemas.sequence import DEFAULT_CAPACITY
from stream.registry import RegistryConfig, require_registry
from stream.topics import BATCH_MAX_MESSAGE_BYTES

DAY_S = 86_400.0


@dataclass(frozen=True)
class IngestConfig:
    """Everything that an ingest worker is told.

    Attributes:
        linger_ms: the least time from one pass to the next; a lone event does not wait for it. A pass writes one batch per
            partition, and each costs the sequence stage and the broker a transaction: at 1,000 events/s, with everything on two
            cores, an event took 23 ms (p50) to the changelog at 10 ms, 18 at 15, and 30 at 25.
        max_poll_messages: raw messages of a pass.
        max_passes_in_flight: passes whose batches the broker has not acknowledged; then polling stops.
        max_batch_bytes: larger batches are split.
        compression: of the batches.
        commit_interval_s: how often source offsets are committed.
        session_timeout_s: a worker that is silent for so long loses its partitions.
        give_up_after_s: without an answer from Kafka for so long the stage ends with UnavailableError.
        metrics_port, metrics_host: where metrics and health are served over HTTP (edge/health.py); port 0 = nowhere.
        schema_registry: of Avro and Protobuf, if `parser` accepts them. While it is away the worker waits, as long as for Kafka.
        traces: where spans go; None = none are made.
    """

    kafka: KafkaConfig
    names: Names = field(default_factory=Names)
    parser: ParserConfig = field(default_factory=ParserConfig)
    linger_ms: float = 15.0
    max_poll_messages: int = 10_000
    max_passes_in_flight: int = 64
    max_batch_bytes: int = BATCH_MAX_MESSAGE_BYTES * 3 // 4
    compression: str = "lz4"
    commit_interval_s: float = 0.5
    session_timeout_s: float = 6.0
    give_up_after_s: float = 120.0
    metrics_port: int = 0
    metrics_host: str = "127.0.0.1"
    schema_registry: RegistryConfig | None = None
    traces: TraceConfig | None = None

    def __post_init__(self) -> None:
        if not 1024 <= self.max_batch_bytes < BATCH_MAX_MESSAGE_BYTES:
            raise ConfigError(f"max_batch_bytes {self.max_batch_bytes} is not in [1024, {BATCH_MAX_MESSAGE_BYTES})")
        if self.linger_ms < 0 or self.max_poll_messages < 1 or self.max_passes_in_flight < 1:
            raise ConfigError("linger_ms must not be negative, max_poll_messages and max_passes_in_flight at least 1")
        require_registry(self.schema_registry, self.parser.formats)


@dataclass(frozen=True)
class SequenceConfig:
    """Everything that a sequence worker is told.

    Attributes:
        capacity: newest events that a sequence keeps. Lowering it shortens a sequence at its next event; raising it brings
            nothing back.
        forget_marker_retention_s: for so long a forgotten user stays known as forgotten after the request, so that a late
            duplicate of an old event does not bring the user back.
        store: where the tables are: "memory", or "rocksdb", on disk below `data_dir`.
        store_memory_bytes: of RocksDB, for all partitions of this worker together.
        data_dir: Faust wants a directory of its own, and RocksDB's databases lie in it; none = a temporary one. Two workers
            cannot share one.
        compression: of the changelog: none, gzip, snappy, lz4 or zstd. `slipstream bench stream` compares them.
        session_timeout_s: a worker that is silent for so long loses its partitions; its successor waits as long.
        rebalance_timeout_s: how long the group waits for a living worker to finish what it has in hand.
        commit_interval_s: how often source offsets are committed.
        give_up_after_s: without an answer from Kafka for so long the stage ends with UnavailableError.
        metrics_port, metrics_host: where metrics and health are served over HTTP (edge/health.py); port 0 = nowhere.
        traces: where spans go; None = none are made.
    """

    kafka: KafkaConfig
    names: Names = field(default_factory=Names)
    capacity: int = DEFAULT_CAPACITY
    forget_marker_retention_s: float = 7 * DAY_S
    store: Literal["memory", "rocksdb"] = "memory"
    store_memory_bytes: int = 256 << 20
    data_dir: Path | None = None
    compression: str = "zstd"
    session_timeout_s: float = 6.0
    rebalance_timeout_s: float = 60.0
    commit_interval_s: float = 0.5
    give_up_after_s: float = 120.0
    metrics_port: int = 0
    metrics_host: str = "127.0.0.1"
    traces: TraceConfig | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.capacity <= 1 << 16:
            raise ConfigError(f"capacity {self.capacity} is not in [1, 65536]")
        if self.compression not in ("none", "gzip", "snappy", "lz4", "zstd"):
            raise ConfigError(
                f"compression {self.compression!r} of the changelog is not none, gzip, snappy, lz4 or zstd"
            )
        if self.store not in ("memory", "rocksdb"):
            raise ConfigError(f"sequence_store {self.store!r} is neither memory nor rocksdb")
        if self.store == "rocksdb" and self.data_dir is None:
            raise ConfigError(
                "sequence_store rocksdb keeps its tables on disk: name a directory of this worker's own with `sequence_dir`"
            )
        if self.store_memory_bytes < 16 << 20:
            raise ConfigError(f"sequence_store_memory_bytes {self.store_memory_bytes} is less than 16 MiB")
