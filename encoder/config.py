"""What an encoder worker is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edge.kafka import KafkaConfig
from edge.tracing import TraceConfig
from encoder.backfill import BackfillConfig
from encoder.hot import DEFAULT_RECHECK_EVERY
from encoder.runtime import RuntimeConfig
from encoder.store_redis import DEFAULT_DELETED_TTL_S
from schemas.errors import ConfigError
from schemas.names import Names

#: Below librdkafka's max.poll.interval of 300 s, after which the group would take the partitions away.
DEFAULT_REDIS_PATIENCE_S = 240.0


@dataclass(frozen=True)
class EncodeConfig:
    """Everything that an encoder worker is told.

    Attributes:
        bundle: the model's directory.
        runtime: what the graphs run on, `encode` and `append` of them.
        state_ttl_s: a state that is not refreshed for so long expires; 0 = never.
        deleted_ttl_s: how long the marker of a deleted user lasts. A worker that was paused for half of that ends.
        hot_cache_bytes: memory for states that were written lately.
        recheck_every: such a state is read again after so many writes.
        max_batch_users: most records, and with that users, of one pass.
        redis_patience_s: how long a batch waits for Redis.
        session_timeout_s: a worker that is silent for so long loses its partitions.
        refresh_log: a file for a JSON line per refreshed user (encoder/refresh_log.py).
        metrics_port, metrics_host: where metrics and health are served over HTTP (edge/health.py); port 0 = nowhere.
        publish_active: name this model as the one that rankers read, if none is named.
        backfill: how what is far behind is worked off beside live records.
        traces: where spans go; None = none are made.
        incremental: build on states that are there; False is for comparison only.
    """

    kafka: KafkaConfig
    redis_url: str = field(repr=False)
    bundle: Path
    names: Names = field(default_factory=Names)
    runtime: RuntimeConfig = field(default_factory=lambda: RuntimeConfig(graphs=("encode", "append")))
    state_ttl_s: int = 0
    deleted_ttl_s: int = DEFAULT_DELETED_TTL_S
    hot_cache_bytes: int = 256 << 20
    recheck_every: int = DEFAULT_RECHECK_EVERY
    max_batch_users: int = 64
    redis_patience_s: float = DEFAULT_REDIS_PATIENCE_S
    session_timeout_s: float = 6.0
    refresh_log: Path | None = None
    metrics_port: int = 0
    metrics_host: str = "127.0.0.1"
    publish_active: bool = True
    backfill: BackfillConfig = field(default_factory=BackfillConfig)
    traces: TraceConfig | None = None
    incremental: bool = True

    def __post_init__(self) -> None:
        if self.max_batch_users < 1 or self.recheck_every < 1:
            raise ConfigError("max_batch_users and recheck_every must be at least 1")
        if self.deleted_ttl_s < 60 or self.state_ttl_s < 0 or self.hot_cache_bytes < 0:
            raise ConfigError("deleted_ttl_s must be at least 60, state_ttl_s and hot_cache_bytes not negative")
