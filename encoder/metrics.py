"""What the encoder tells Prometheus. No label holds a user."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

_FRESHNESS_S = (
    0.002,
    0.005,
    0.01,
    0.02,
    0.03,
    0.04,
    0.06,
    0.08,
    0.1,
    0.15,
    0.2,
    0.4,
    0.8,
    1.5,
    3,
    6,
    15,
    60,
    300,
    1800,
    7200,
)
_BATCH_USERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class EncodeMetrics:
    """Counters of one encoder, in the given registry or, without one, for nobody but the caller."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self.refreshes = Counter(
            "slipstream_encode_refreshes", "Users refreshed, by what it took", ["kind"], registry=registry
        )
        self.encoded_events = Counter(
            "slipstream_encode_events", "Events that went through a graph, kept ones not counted", registry=registry
        )
        self.freshness_seconds = Histogram(
            "slipstream_encode_freshness_seconds",
            "From the arrival of a user's oldest new event at the broker to the state being readable",
            buckets=_FRESHNESS_S,
            registry=registry,
        )
        self.batch_users = Histogram(
            "slipstream_encode_batch_users", "Users per micro-batch", buckets=_BATCH_USERS, registry=registry
        )
        self.conflicts = Counter(
            "slipstream_encode_conflicts",
            "Writes that found another state than they were planned from",
            registry=registry,
        )
        self.superseded = Counter(
            "slipstream_encode_superseded", "Refreshes dropped since a newer state was there", registry=registry
        )
        self.damaged_states = Counter(
            "slipstream_encode_damaged_states",
            "Stored values that could not be read and are replaced",
            registry=registry,
        )
        self.bad_records = Counter(
            "slipstream_encode_bad_records", "Changelog records that are no sequence, skipped", registry=registry
        )
        self.store_retries = Counter(
            "slipstream_encode_store_retries", "Times that a batch had to wait for Redis", registry=registry
        )
        self.redis_losses = Counter(
            "slipstream_encode_redis_losses",
            "Partitions whose states Redis lost, all of them or the newest, and that are read again",
            ["extent"],
            registry=registry,
        )
        self.state_bytes_written = Counter(
            "slipstream_encode_state_bytes_written", "Headers and slots sent to the store, bytes", registry=registry
        )
        self.part_seconds = Counter(
            "slipstream_encode_part_seconds", "Where the time goes", ["part"], registry=registry
        )
        self.lag_records = Gauge(
            "slipstream_encode_lag_records", "Changelog records not yet in states", ["partition"], registry=registry
        )
        self.backfill_records = Counter(
            "slipstream_encode_backfill_records",
            "Changelog records worked off beside live ones, those not counted that gave way to a newer one of their user",
            registry=registry,
        )
        self.backfill_users = Counter(
            "slipstream_encode_backfill_users", "States that they made or changed", registry=registry
        )
        self.backfill_remaining = Gauge(
            "slipstream_encode_backfill_remaining",
            "Offsets that are still to be backfilled; no series where nothing is",
            ["partition"],
            registry=registry,
        )
        self.hot_states = Gauge("slipstream_encode_hot_states", "States kept in this process", registry=registry)
        self.hot_bytes = Gauge("slipstream_encode_hot_bytes", "Their size", registry=registry)
        self.graph_nodes = Gauge(
            "slipstream_encode_graph_nodes",
            "Nodes of the model's graphs, by the provider that really runs them",
            ["graph", "provider"],
            registry=registry,
        )
        self.model = Info("slipstream_encode_model", "The model and what it runs on", registry=registry)
