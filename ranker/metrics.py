"""What a reader counts. No user ids: labels are bounded."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from ranker.connection import LATE
from ranker.rows import Row, Status

_DEADLINE, _UNAVAILABLE, _CIRCUIT_OPEN = _REASONS = ("deadline", "unavailable", "circuit_open")
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class ReaderMetrics:
    """Counters of one reader.

    Args:
        registry: where they are exposed; None = they only count.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        rows = Counter("slipstream_ranker_rows", "Rows read, by what they were good for", ["status"], registry=registry)
        self._cached = Counter("slipstream_ranker_cached_rows", "Rows that Redis was not asked for", registry=registry)
        self._rows = {status: rows.labels(status.value) for status in Status}
        self._failures = Counter(
            "slipstream_ranker_read_failures", "Calls that got no answer, by why", ["reason"], registry=registry
        )
        self._seconds = Histogram(
            "slipstream_ranker_read_seconds", "Time of a call, decoding included", buckets=_SECONDS, registry=registry
        )
        for reason in _REASONS:  # a series that begins at 1 has no increase
            self._failures.labels(reason)
        #: The same counts for people and tests.
        self.rows: Tally[Status] = Tally()
        self.failures: Tally[str] = Tally()

    def count(self, rows: Sequence[Row], cached: int, seconds: float) -> None:
        tally = Tally(row.status for row in rows)
        self.rows += tally
        for status, n in tally.items():
            self._rows[status].inc(n)
        self._cached.inc(cached)
        self._seconds.observe(seconds)

    def refuse(self) -> None:
        """A call that Redis was not asked for, since the circuit is open."""
        self.failures[_CIRCUIT_OPEN] += 1
        self._failures.labels(_CIRCUIT_OPEN).inc()

    def fail(self, error: Exception) -> None:
        reason = _DEADLINE if isinstance(error, LATE) else _UNAVAILABLE
        self.failures[reason] += 1
        self._failures.labels(reason).inc()
