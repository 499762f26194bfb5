"""What the encoder tells Prometheus, beside what every stage tells (edge/metrics.py)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from edge.metrics import StageMetrics
from encoder.plan import PlanKind

_BATCH_USERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
#: Of what Redis lost: all states of a partition, or those written last.
EVERYTHING, NEWEST = "everything", "newest"


class EncodeMetrics:
    """Metrics of one encoder, in the given registry or, without one, for nobody but the caller."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"slipstream_encode_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"slipstream_encode_{name}", text, labels, registry=registry)

        self.stage = StageMetrics(registry, "encode")
        self.refreshes = counter("refreshes", "Users refreshed, by what it took", ("kind",))
        self.encoded_events = counter("events", "Events that went through a graph, kept ones not counted")
        self.batch_users = Histogram(
            "slipstream_encode_batch_users", "Users per micro-batch", buckets=_BATCH_USERS, registry=registry
        )
        self.conflicts = counter("conflicts", "Writes that found another state than they were planned from")
        self.superseded = counter("superseded", "Refreshes dropped since a newer state was there")
        self.damaged_states = counter("damaged_states", "Stored values that could not be read and are replaced")
        self.bad_records = counter("bad_records", "Changelog records that are no sequence, skipped")
        self.store_retries = counter("store_retries", "Times that a batch had to wait for Redis")
        self.redis_losses = counter(
            "redis_losses",
            "Partitions whose states Redis lost, all of them or the newest, and that are read again",
            ("extent",),
        )
        self.state_bytes_written = counter("state_bytes_written", "Headers and slots sent to the store, bytes")
        self.part_seconds = counter("part_seconds", "Where the time goes", ("part",))
        self.backfill_records = counter(
            "backfill_records",
            "Changelog records worked off beside live ones, those not counted that gave way to a newer one of their user",
        )
        self.backfill_users = counter("backfill_users", "States that they made or changed")
        self.backfill_remaining = gauge(
            "backfill_remaining", "Offsets that are still to be backfilled; no series where nothing is", ("partition",)
        )
        self.hot_states = gauge("hot_states", "States kept in this process")
        self.hot_bytes = gauge("hot_bytes", "Their size")
        self.graph_nodes = gauge(
            "graph_nodes", "Nodes of the model's graphs, by the provider that really runs them", ("graph", "provider")
        )
        self.lower_provider = gauge("lower_provider", "1 if the model runs on another than the first of `providers`")
        self.model = gauge("model_info", "1, with the model and what it runs on", ("model_id", "provider", "precision"))
        for kind in PlanKind:  # a series that begins at 1 has no increase
            self.refreshes.labels(kind)
        for extent in (EVERYTHING, NEWEST):
            self.redis_losses.labels(extent)
