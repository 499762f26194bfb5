"""What the stages tell Prometheus. Base units; no user ids; labels with few values."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# From a lone event on an idle machine to a backlog.
_LATENCY_S = (0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 5, 30, 120, 600)
_TRANSACTION_S = (0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 5, 30)


class IngestMetrics:
    """Metrics of one ingest worker."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"slipstream_ingest_{name}", text, labels, registry=registry)

        self.ready = Gauge("slipstream_ingest_ready", "1 while Kafka answers", registry=registry)
        self.messages = counter("messages", "Raw messages read")
        self.events = counter("events", "Valid events and forget requests, duplicates too")
        self.dead_letters = counter("dead_letters", "Messages sent to the dead letters", ("reason",))
        self.expired_messages = counter("expired_messages", "Raw messages that retention removed before they were read")
        self.batches = counter("batches", "Packed batches written")
        self.batch_bytes = counter("batch_bytes", "Bytes of packed batches, before compression")
        self.lag = Gauge(
            "slipstream_ingest_lag", "Raw messages not read yet, per owned partition", ("partition",), registry=registry
        )
        self.latency = Histogram(
            "slipstream_ingest_latency_seconds",
            "From the arrival of a pass's oldest raw message to the delivery of the pass's batches",
            buckets=_LATENCY_S,
            registry=registry,
        )


class SequenceMetrics:
    """Metrics of one sequence worker."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"slipstream_sequence_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"slipstream_sequence_{name}", text, labels, registry=registry)

        self.ready = gauge("ready", "1 while Kafka answers and the tables of all owned partitions are loaded")
        self.partitions = gauge("partitions", "Partitions owned")
        self.users = gauge("users", "Users in the tables of the owned partitions; estimated if they are on disk")
        self.lag = gauge("lag", "Packed batches not committed yet, per owned partition", ("partition",))
        self.batches = counter("batches", "Packed batches folded in")
        self.expired_batches = counter("expired_batches", "Packed batches that retention removed before they were read")
        self.records = counter("records", "Records in them, duplicates too")
        self.dead_letters = counter("dead_letters", "Messages sent to the dead letters", ("reason",))
        self.users_written = counter("users_written", "Sequences written to the changelog")
        self.tombstones = counter("tombstones", "Expired markers of forgotten users removed from the changelog")
        self.transactions = counter("transactions", "Transactions committed")
        self.changelog_bytes = counter("changelog_bytes", "Bytes of changelog values, before compression")
        self.transaction_s = Histogram(
            "slipstream_sequence_transaction_seconds", "Begin to commit", buckets=_TRANSACTION_S, registry=registry
        )
        self.latency = Histogram(
            "slipstream_sequence_latency_seconds",
            "From the arrival of a transaction's oldest raw event to its commit",
            buckets=_LATENCY_S,
            registry=registry,
        )
        self.recovered_records = counter("recovered_records", "Changelog records read at recovery")
        self.recovery_s = gauge("recovery_seconds", "Duration of the last recovery of a partition")
