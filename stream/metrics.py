"""What ingest and sequence workers tell Prometheus, beside what every stage tells (edge/metrics.py)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from edge.metrics import StageMetrics
from schemas.errors import EventError
from stream.dead_letters import BAD_BATCH, BAD_SEQUENCE

_TRANSACTION_S = (0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 5, 30)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 50_000)


class IngestMetrics:
    """Metrics of one ingest worker."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"slipstream_ingest_{name}", text, labels, registry=registry)

        self.stage = StageMetrics(registry, "ingest")
        self.events = counter("events", "Valid events and forget requests, duplicates too")
        self.dead_letters = counter("dead_letters", "Messages sent to the dead letters", ("reason",))
        self.expired_messages = counter("expired_messages", "Raw messages that retention removed before they were read")
        self.batches = counter("batches", "Packed batches written")
        self.batch_bytes = counter("batch_bytes", "Bytes of packed batches, before compression")
        self.pass_messages = Histogram(
            "slipstream_ingest_pass_messages", "Raw messages of a pass", buckets=_SIZES, registry=registry
        )
        for reason in EventError.REASONS:  # a series that begins at 1 has no increase
            self.dead_letters.labels(reason)


class SequenceMetrics:
    """Metrics of one sequence worker."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"slipstream_sequence_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"slipstream_sequence_{name}", text, labels, registry=registry)

        self.stage = StageMetrics(registry, "sequence")
        self.partitions = gauge("partitions", "Partitions owned")
        self.users = gauge("users", "Users in the tables of the owned partitions; estimated if they are on disk")
        self.expired_batches = counter("expired_batches", "Packed batches that retention removed before they were read")
        self.records = counter("records", "Records in packed batches, duplicates too")
        self.dead_letters = counter("dead_letters", "Messages sent to the dead letters", ("reason",))
        self.users_written = counter("users_written", "Sequences written to the changelog")
        self.tombstones = counter("tombstones", "Expired markers of forgotten users removed from the changelog")
        self.changelog_bytes = counter("changelog_bytes", "Bytes of changelog values, before compression")
        self.transaction_s = Histogram(
            "slipstream_sequence_transaction_seconds", "Begin to commit", buckets=_TRANSACTION_S, registry=registry
        )
        self.transaction_users = Histogram(
            "slipstream_sequence_transaction_users", "Sequences of a transaction", buckets=_SIZES, registry=registry
        )
        self.recovered_records = counter("recovered_records", "Changelog records read at recovery")
        self.recovery_s = gauge("recovery_seconds", "Duration of the last recovery of a partition")
        self.disk_free_bytes = gauge("disk_free_bytes", "Free where the tables are, if on disk", ("store",))
        self.disk_size_bytes = gauge("disk_size_bytes", "Size of that disk", ("store",))
        for reason in (BAD_BATCH, BAD_SEQUENCE):  # a series that begins at 1 has no increase
            self.dead_letters.labels(reason)
