"""What the service tells Prometheus, beside its reader's `slipstream_ranker_*`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

#: Why popularity answered.
FALLBACKS = ("not_found", "invalid", "unavailable", "deadline", "error")
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class ServiceMetrics:
    """Metrics of one service."""

    def __init__(self, registry: CollectorRegistry) -> None:
        requests = Counter("ranking_requests", "Answers, by what scored them", ["by"], registry=registry)
        fallbacks = Counter("ranking_fallbacks", "Answers by popularity, by why", ["reason"], registry=registry)
        # Before the first of them: a series that begins at 1 has no increase.
        self._requests = {by: requests.labels(by) for by in ("model", "popularity")}
        self._fallbacks = {reason: fallbacks.labels(reason) for reason in FALLBACKS}
        self._seconds = Histogram(
            "ranking_request_seconds", "From a request's arrival to its answer", buckets=_SECONDS, registry=registry
        )
        self.ready = Gauge("ranking_ready", "1 while /ready answers 200", registry=registry)
        ProcessCollector(registry=registry)

    def answered(self, by: str, fallback: str, seconds: float) -> None:
        """
        Args:
            fallback: of FALLBACKS; empty if the model answered.
        """
        self._requests[by].inc()
        if fallback:
            self._fallbacks[fallback].inc()
        self._seconds.observe(seconds)
