"""What Faust may tell us at a rebalance and at its end. Run alone: pytest tests/stream/test_table.py"""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest
from aiokafka.errors import NodeNotReadyError  # type: ignore[import-untyped]
from faust.types import TP

from schemas.errors import FencedError
from stream.sequence_app import tell_thread_error
from stream.table import SequenceStore


def test_another_workers_record_ends_a_worker_that_was_silent() -> None:
    """Chaos found it: stopped past its session, it lost a partition and got it back at one and the same rebalance."""
    failures: list[BaseException] = []
    store = object.__new__(SequenceStore)
    store._fail = failures.append
    store.apply_changelog_batch([], bytes, bytes)
    assert failures == []
    record = SimpleNamespace(message=SimpleNamespace(tp=TP("p.sequences", 3), offset=14_750))
    store.apply_changelog_batch([record, record], bytes, bytes)
    (failure,) = failures
    assert isinstance(failure, FencedError)
    assert "topic p.sequences, partition 3: offset 14750" in str(failure)
    assert "another worker owns it now" in str(failure)


@pytest.mark.parametrize(
    ("error", "is_told"),
    [(RuntimeError("a bug"), True), (NodeNotReadyError("away"), False), (asyncio.CancelledError(), False)],
)
def test_a_thread_that_ends_since_kafka_is_away_tells_no_traceback(
    error: BaseException, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    tell_thread_error(threading.ExceptHookArgs((type(error), error, None, threading.current_thread())))
    assert ("ended by an unexpected error" in caplog.text) is is_told
