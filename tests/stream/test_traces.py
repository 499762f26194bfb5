"""Which events are traced, how many, and how their traces fan in. All stages together: tests/integration/test_live_path.py."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import Message
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from edge.tracing import TraceConfig, Tracing
from schemas.errors import ConfigError
from schemas.event import Parser, ParserConfig, encode_engagement
from schemas.names import Names
from schemas.traces import HEADER_TRACES, MAX_TRACES, TraceParent, decode_traces, encode_traces
from stream.batch_queue import Pending
from stream.changelog import Write
from stream.dead_letters import Provenance
from stream.ingest_traces import IngestTraces, PassTraces
from stream.pack import Packed, PackedBatch
from stream.sequence_traces import SequenceTraces

NAMES = Names("t")
NOW_MS = 1_767_225_600_000


class Kept:
    """Spans that have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name.split()[0] == name]

    def errors(self) -> Counter[Any]:
        of = (span.attributes or {} for span in self.named("process"))
        return Counter(attributes["error.type"] for attributes in of if "error.type" in attributes)


@pytest.fixture
def kept() -> Kept:
    return Kept()


def raw(i: int, user: str, traceparent: str | None) -> Message:
    value = encode_engagement(user, i, "save", "home", NOW_MS)
    headers: Any = None if traceparent is None else [("traceparent", traceparent.encode())]
    return Message(topic="t", partition=0, offset=i, value=value, headers=headers, timestamp=(1, NOW_MS))


def w3c(i: int, flags: str = "01") -> str:
    return f"00-{i + 1:032x}-{i + 1:016x}-{flags}"


def begin(kept: Kept, messages: list[Message], ratio: float = 0.0) -> PassTraces | None:
    traces = IngestTraces(kept.tracing, ratio, NAMES, Parser(ParserConfig()), 1)
    return traces.begin(messages, [message.value() for message in messages])


def ignored(*_: object) -> None: ...


def test_without_a_producers_trace_or_a_ratio_nothing_is_traced(kept: Kept) -> None:
    messages = [raw(i, "u", w3c(i, "00") if i % 2 else None) for i in range(50)]
    assert begin(kept, messages) is None
    traced = begin(kept, messages, ratio=1.0)  # what its producer does not sample is not drawn either
    assert traced is not None
    (receive,) = kept.named("poll")
    assert len(receive.links) == 25


def test_a_ratio_is_met(kept: Kept) -> None:
    messages = [raw(i, "u", None) for i in range(40)]
    for _ in range(100):
        begin(kept, messages, ratio=0.05)
    links = sum(len(span.links) for span in kept.named("poll"))
    assert 90 < links < 310, "of 4,000 at 5%: 200, give or take 8 standard deviations"


def test_a_batch_names_a_bounded_number_and_counts_the_rest(kept: Kept) -> None:
    messages = [raw(i, f"u{i}", w3c(i)) for i in range(100)]
    traced = begin(kept, messages)
    assert traced is not None
    (receive,) = kept.named("poll")
    assert receive.attributes is not None
    assert (len(receive.links), receive.attributes["slipstream.traces.dropped"]) == (64, 36)
    headers, delivered = traced.sending(0, ignored)
    assert kept.errors() == {"too_many_traces": 64 - MAX_TRACES}
    (name, value), *_ = headers
    assert name == HEADER_TRACES
    assert isinstance(value, bytes)
    assert [parent.user for parent in decode_traces(value)] == [b"u%d" % i for i in range(MAX_TRACES)]
    delivered(None, Message(topic="b", partition=0, offset=7))
    sent = kept.named("send")
    assert {(span.attributes or {})["messaging.kafka.offset"] for span in sent} == {7}
    assert len(sent) == MAX_TRACES


def test_the_traces_of_a_split_batch_end_in_ingest(kept: Kept) -> None:
    traced = begin(kept, [raw(1, "u", w3c(1))])
    assert traced is not None
    traced.packed(Packed([PackedBatch(0, b"", 1, 1)] * 2, [], 2))
    assert kept.errors() == {"split_batch": 1}
    assert traced.sending(0, ignored) == ([], ignored)


def test_an_undelivered_batch_is_a_failed_span(kept: Kept) -> None:
    traced = begin(kept, [raw(1, "u", w3c(1))])
    assert traced is not None
    _, delivered = traced.sending(0, ignored)
    error: Any = SimpleNamespace(name=lambda: "_MSG_TIMED_OUT")
    delivered(error, Message(topic="b", partition=0, offset=0))
    assert kept.errors() == {"_MSG_TIMED_OUT": 1}


def pending(offset: int, parents: list[TraceParent]) -> Pending:
    headers: Any = [(HEADER_TRACES, encode_traces(parents))] if parents else []
    return Pending(Provenance("b", 0, offset, NOW_MS), None, b"", headers, lambda: None, lambda: None)


def test_batches_fan_into_one_transaction_and_out_into_records(kept: Kept) -> None:
    """Two traced events of one user, one of another whose sequence does not change, one batch without traces."""
    a, b, c = (TraceParent(i, i, user) for i, user in ((1, b"one"), (2, b"one"), (3, b"two")))
    traced = SequenceTraces(kept.tracing, NAMES).begin([pending(4, [a, c]), pending(5, []), pending(6, [b])])
    assert traced is not None
    headers = traced.sending([Write(b"one", b"", 0), Write(b"three", b"", 0)])
    traced.end()
    (receive,) = kept.named("poll")
    assert receive.attributes is not None
    assert [link.context.trace_id for link in receive.links] == [1, 3, 2]
    assert receive.attributes["messaging.batch.message_count"] == 3
    assert headers.keys() == {b"one"}
    (_, value), *_ = headers[b"one"]
    sent = {span.context.span_id: span for span in kept.named("send") if span.context}
    for parent, trace_id in zip(decode_traces(value), (1, 2), strict=True):
        assert (parent.trace_id, parent.user) == (trace_id, b"")
        assert sent[parent.span_id].parent is not None
    changed = [(span.attributes or {})["slipstream.sequence.changed"] for span in kept.named("process")]
    assert sorted(changed) == [False, True, True]
    assert SequenceTraces(kept.tracing, NAMES).begin([pending(7, [])]) is None


def test_a_transaction_is_bounded_too(kept: Kept) -> None:
    many = [pending(i, [TraceParent(i + 1, 1, b"u")] * 2) for i in range(10)]
    traced = SequenceTraces(kept.tracing, NAMES).begin(many)
    assert traced is not None
    assert len(decode_traces(dict(traced.sending([Write(b"u", b"", 0)])[b"u"])[HEADER_TRACES])) == MAX_TRACES
    assert (kept.named("poll")[0].attributes or {})["slipstream.traces.dropped"] == 20 - MAX_TRACES


@pytest.mark.parametrize(("endpoint", "ratio"), [("localhost:4318", 0.0), ("http://localhost:4318", 1.5)])
def test_a_wrong_configuration_is_an_error(endpoint: str, ratio: float) -> None:
    with pytest.raises(ConfigError, match="trace"):
        TraceConfig(endpoint, ratio)


def test_opentelemetrys_traces_are_not_imported_while_they_are_off() -> None:
    """redis-py imports its metrics by itself, where they are installed."""
    program = (
        "import sys, stream.ingest, stream.sequence, encoder.worker, slipstream.cli.app\n"
        "from edge.tracing import tracing\n"
        "with tracing(None, 'ingest', 'p') as spans:\n"
        "    assert spans is None\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk.trace', 'opentelemetry.exporter'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[2]
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
