"""OpenTelemetry spans of a stage, sent by OTLP over HTTP. Needs the extra `otel`, which is imported when traces are asked for.

Names are those of the semantic conventions for messaging and Kafka, and for database calls, as opentelemetry-semantic-conventions
0.66 has them (`messaging.kafka.offset` was `messaging.kafka.message.offset` before). No span has a user, an item or a message's
content.

Whether an event is traced is decided once, by its producer or by ingest; a stage makes spans for what it is handed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Literal

from edge.process import FAREWELL_S, in_time, process_id
from schemas.errors import ConfigError, PrerequisiteError
from schemas.traces import TraceParent

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanContext

Attributes = Mapping[str, str | int | float | bool]
Operation = Literal["receive", "process", "send"]

#: Operations as librdkafka and aiokafka call them.
_NAMES = {"receive": "poll", "process": "process", "send": "send"}


@dataclass(frozen=True)
class TraceConfig:
    """
    Attributes:
        endpoint: the collector's URL for traces, such as http://localhost:4318/v1/traces; it may hold a password.
        ratio: of the events without a `traceparent`, how many are traced.
    """

    endpoint: str = field(repr=False)
    ratio: float = 0.0

    def __post_init__(self) -> None:
        if not self.endpoint.startswith(("http://", "https://")):
            raise ConfigError(
                "traces_endpoint must begin with http:// or https://: OTLP over HTTP, e.g. http://localhost:4318/v1/traces"
            )
        if not 0 <= self.ratio <= 1:
            raise ConfigError(f"trace_ratio {self.ratio} is not in [0, 1]")


class Tracing:
    """Makes the spans of one stage. Any thread may."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace

        self._trace = trace
        self._tracer = provider.get_tracer("slipstream")
        self._kinds = {
            "receive": trace.SpanKind.CLIENT,
            "process": trace.SpanKind.CONSUMER,
            "send": trace.SpanKind.PRODUCER,
        }

    def messaging(
        self,
        operation: Operation,
        topic: str,
        parent: TraceParent | None,
        attributes: Attributes,
        start_ns: int | None = None,
        links: Sequence[TraceParent] = (),
    ) -> Span:
        """A span of a Kafka operation, begun. `attributes` come beside those that every one has; end it."""
        return self._tracer.start_span(
            f"{_NAMES[operation]} {topic}",
            self._context(parent),
            self._kinds[operation],
            {
                "messaging.system": "kafka",
                "messaging.operation.type": operation,
                "messaging.operation.name": _NAMES[operation],
                "messaging.destination.name": topic,
                **attributes,
            },
            [self._trace.Link(self._remote(link)) for link in links],
            start_ns,
        )

    def received(
        self,
        topic: str,
        parents: Sequence[TraceParent],
        messages: int,
        dropped: int,
        attributes: Attributes,
        begun_ns: int,
    ) -> None:
        """The span of a batch's arrival, over at once: in the trace of its first traced event, linked to all of them.

        Args:
            parents: of the traced events, one at least.
            messages: of the batch.
            dropped: events that were to be traced and are not.
        """
        counted = {**attributes, "messaging.batch.message_count": messages, "slipstream.traces.dropped": dropped}
        self.messaging("receive", topic, parents[0], counted, begun_ns, parents).end()

    def redis(self, parent: TraceParent, attributes: Attributes, start_ns: int) -> Span:
        """A span of a write to Redis, begun."""
        named = {"db.system.name": "redis", "db.operation.name": "EVALSHA", **attributes}
        return self._tracer.start_span(
            "EVALSHA", self._context(parent), self._trace.SpanKind.CLIENT, named, (), start_ns
        )

    def fail(self, span: Span, reason: str) -> None:
        """End it as failed; `reason` is a short code."""
        span.set_attribute("error.type", reason)
        span.set_status(self._trace.Status(self._trace.StatusCode.ERROR))
        span.end()

    def _context(self, parent: TraceParent | None) -> Context:
        if parent is None:
            return self._trace.set_span_in_context(self._trace.INVALID_SPAN)  # a root
        return self._trace.set_span_in_context(self._trace.NonRecordingSpan(self._remote(parent)))

    def _remote(self, parent: TraceParent) -> SpanContext:
        return self._trace.SpanContext(parent.trace_id, parent.span_id, True, self._trace.TraceFlags(1))


def parent_of(span: Span, user: bytes = b"") -> TraceParent:
    """What is handed on, for a child of it."""
    context = span.get_span_context()
    return TraceParent(context.trace_id, context.span_id, user)


@contextmanager
def tracing(config: TraceConfig | None, stage: str, prefix: str) -> Iterator[Tracing | None]:
    """None without a configuration. At the end, spans that still wait are sent, for a few seconds.

    Raises:
        PrerequisiteError: the extra `otel` is not installed.
    """
    if config is None:
        yield None
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON
    except ModuleNotFoundError as error:
        raise PrerequisiteError(
            f"`traces_endpoint` needs the package {error.name}: pip install 'slipstream-embeddings[otel]'"
        ) from None
    resource = Resource.create(
        {
            "service.name": f"slipstream-{stage}",
            "service.namespace": prefix,
            "service.instance.id": process_id(),
            "service.version": metadata.version("slipstream-embeddings"),
        }
    )
    provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(config.endpoint)))
    # A collector that is away is told once a batch, not at every attempt.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
    try:
        yield Tracing(provider)
    finally:
        in_time(FAREWELL_S, provider.shutdown)  # a collector that is away holds up nobody
