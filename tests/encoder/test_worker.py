"""The worker's own decisions; tests/integration/test_encode.py has the rest, on real Kafka."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import pytest
from confluent_kafka import Message
from prometheus_client import CollectorRegistry

from edge.health import Health
from edge.kafka import KafkaConfig
from encoder.backfill_reader import BackfillReader
from encoder.changelog import ChangelogRecord
from encoder.config import EncodeConfig
from encoder.consumers import Polled
from encoder.engine import Done, Engine, Update
from encoder.hot import HotStates
from encoder.loop import Worker
from encoder.metrics import EncodeMetrics
from encoder.plan import PlanKind
from encoder.source import Source
from encoder.stopwatch import Stopwatch
from schemas.errors import ConfigError, FencedError, SlipstreamError, UnavailableError
from schemas.sequence import Sequence as Events
from schemas.sequence import encode_sequence
from tests.encoder.histories import events
from tests.encoder.states import LAYOUT


class Tape:
    """A source that plays given batches and notes what becomes of them; at its end it stops the worker."""

    def __init__(self, batches: list[Polled], stop: threading.Event) -> None:
        self._batches, self._stop = batches, stop
        self.backfill = BackfillReader(
            "sequences", 24, lambda: pytest.fail("nothing is far behind"), lambda error: None
        )
        self.done_batches: list[Polled] = []
        self.closed = False

    def wait(self, timeout_s: float) -> Message | None:
        if not self._batches:
            self._stop.set()
            return None
        return cast(Message, object())

    def take(self, first: Message, max_records: int) -> Polled:
        return self._batches.pop(0)

    def done(self, polled: Polled, updates: Iterable[Update]) -> None:
        self.done_batches.append(polled)

    def commit_if_due(self) -> None: ...

    def lag_records(self) -> dict[int, int]:
        return {0: 5}

    def close(self) -> None:
        self.closed = True


class Script:
    """An engine that fails as told, then works."""

    def __init__(self, failures: list[SlipstreamError], stop: threading.Event | None = None) -> None:
        self._failures, self._stop = failures, stop
        self.calls: list[list[Update]] = []

    def refresh(self, updates: Sequence[Update], polled_ms: int | None = None) -> list[Done]:
        self.calls.append(list(updates))
        if self._failures:
            if self._stop is not None:
                self._stop.set()
            raise self._failures.pop(0)
        return [Done(PlanKind.FULL, 1, update.arrived_ms + 30) for update in updates]


def polled(*records: ChangelogRecord) -> Polled:
    return Polled(list(records), {0: records[-1].offset + 1 if records else 7})


def record(offset: int, value: bytes | None = None) -> ChangelogRecord:
    sequence = encode_sequence(Events(0, events([offset])))
    return ChangelogRecord(b"u%d" % offset, value or sequence, 0, offset, 1_000_000 + offset)


class Rig:
    def __init__(self, batches: list[Polled], failures: list[SlipstreamError], stops_on_failure: bool = False) -> None:
        self.stop = threading.Event()
        self.source = Tape(batches, self.stop)
        self.engine = Script(failures, self.stop if stops_on_failure else None)
        self.registry = CollectorRegistry()
        config = EncodeConfig(KafkaConfig("localhost:9"), "redis://localhost:9", Path("none"), redis_patience_s=0.3)
        self.worker = Worker(
            config, cast(Source, self.source), cast(Engine, self.engine), cast(Engine, self.engine), bytes(16),
            EncodeMetrics(self.registry), Stopwatch(), HotStates(LAYOUT, 0), Health(), lambda: None,
        )  # fmt: skip

    def run(self) -> None:
        self.worker.run(self.stop)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"slipstream_encode_{name}", labels)


def test_batches_are_done_after_their_refresh() -> None:
    batches = [polled(record(1), record(2)), polled(record(3))]
    rig = Rig(list(batches), [])
    rig.run()
    assert rig.source.done_batches == batches
    assert [len(call) for call in rig.engine.calls] == [2, 1]
    assert rig.source.closed
    told = rig.registry.get_sample_value
    assert told("slipstream_freshness_seconds_count", {"stage": "encode"}) == 3
    assert told("slipstream_freshness_seconds_sum", {"stage": "encode"}) == pytest.approx(0.09)
    assert told("slipstream_lag_messages", {"stage": "encode", "partition": "0"}) == 5


def test_a_batch_of_markers_only_is_done_without_a_refresh() -> None:
    rig = Rig([polled()], [])
    rig.run()
    assert rig.source.done_batches == [polled()]
    assert rig.engine.calls == []


def test_what_cannot_be_read_is_counted_and_done(caplog: pytest.LogCaptureFixture) -> None:
    batch = polled(record(1, b"junk"), record(2))
    rig = Rig([batch], [])
    rig.run()
    assert rig.source.done_batches == [batch]
    assert [update.user for update in rig.engine.calls[0]] == [b"u2"]
    assert rig.value("bad_records_total") == 1
    assert "partition 0, offset 1" in caplog.text


def test_a_store_that_is_away_for_a_while_is_waited_for() -> None:
    batch = polled(record(1))
    rig = Rig([batch], [UnavailableError("away")])
    rig.run()
    assert rig.source.done_batches == [batch]
    assert len(rig.engine.calls) == 2
    assert rig.value("store_retries_total") == 1


def test_a_store_that_stays_away_ends_the_worker_and_nothing_is_done() -> None:
    rig = Rig([polled(record(1))], [UnavailableError("away")] * 100)
    with pytest.raises(UnavailableError):
        rig.run()
    assert rig.source.done_batches == []
    assert rig.source.closed, "it leaves the group, so that others need not wait for its session to end"


def test_a_stop_while_the_store_is_away_leaves_the_batch_undone() -> None:
    rig = Rig([polled(record(1))], [UnavailableError("away")] * 100, stops_on_failure=True)
    rig.run()
    assert rig.source.done_batches == []
    assert rig.source.closed


def test_a_fenced_worker_ends_and_nothing_is_done() -> None:
    rig = Rig([polled(record(1))], [FencedError("paused")])
    with pytest.raises(FencedError):
        rig.run()
    assert rig.source.done_batches == []
    assert rig.source.closed


@pytest.mark.parametrize(
    "wrong", [{"max_batch_users": 0}, {"deleted_ttl_s": 5}, {"hot_cache_bytes": -1}, {"recheck_every": 0}]
)
def test_settings_that_cannot_work(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        EncodeConfig(KafkaConfig("localhost:9"), "redis://localhost:9", Path("none"), **wrong)  # type: ignore[arg-type]


def test_secrets_are_not_shown() -> None:
    config = EncodeConfig(
        KafkaConfig("localhost:9", {"sasl.password": "hidden"}), "redis://:hidden@localhost:9", Path("none")
    )
    assert "hidden" not in repr(config)
