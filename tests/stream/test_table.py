"""What Faust may tell our table at a rebalance. Run alone: pytest tests/stream/test_table.py"""

from __future__ import annotations

from types import SimpleNamespace

from faust.types import TP

from schemas.errors import FencedError
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
