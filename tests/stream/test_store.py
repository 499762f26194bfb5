"""Run: pytest tests/stream/test_store.py"""

from __future__ import annotations

import numpy as np

from schemas.sequence import RECORD, Sequence, encode_sequence
from stream.store import PartitionTable

VALUE = encode_sequence(Sequence(0, np.ones(2, RECORD)))
MARKER = encode_sequence(Sequence(50, np.empty(0, RECORD)))


def test_put_get_and_tombstones() -> None:
    table = PartitionTable()
    table.put(b"a", VALUE, 1)
    table.put(b"b", MARKER, 2)
    assert table.get_many([b"b", b"x", b"a"]) == [MARKER, None, VALUE]
    assert (len(table), b"a" in table, table.get(b"a")) == (2, True, VALUE)
    table.put(b"a", None, 3)
    table.put(b"never", None, 3)
    assert dict(table.items()) == {b"b": MARKER}


def test_markers_expire_by_when_they_were_written() -> None:
    table = PartitionTable()
    table.put(b"old", MARKER, 100)
    table.put(b"new", MARKER, 200)
    table.put(b"again", MARKER, 100)
    table.put(b"again", MARKER, 300)  # asked once more
    table.put(b"back", MARKER, 100)
    table.put(b"back", VALUE, 150)  # the user came back
    table.put(b"gone", MARKER, 100)
    table.put(b"gone", None, 150)
    assert table.expired_markers(100) == []
    assert table.expired_markers(200) == [b"old"]
    assert sorted(table.expired_markers(10**9)) == [b"again", b"new", b"old"]
