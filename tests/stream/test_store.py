"""Run: pytest tests/stream/test_store.py"""

from __future__ import annotations

import numpy as np

from schemas.sequence import RECORD, Sequence, encode_sequence
from stream.store import MemoryTable

VALUE = encode_sequence(Sequence(0, np.ones(2, RECORD)))
MARKER = encode_sequence(Sequence(50, np.empty(0, RECORD)))


def test_put_get_and_tombstones() -> None:
    table = MemoryTable()
    table.put_many([(b"a", VALUE, 1)])
    table.put_many([(b"b", MARKER, 2)])
    assert table.get_many([b"b", b"x", b"a"]) == [MARKER, None, VALUE]
    assert (len(table), table.get_many([b"a"])[0]) == (2, VALUE)
    table.put_many([(b"a", None, 3)])
    table.put_many([(b"never", None, 3)])
    assert dict(table.items()) == {b"b": MARKER}


def test_markers_expire_by_when_they_were_written() -> None:
    table = MemoryTable()
    table.put_many([(b"old", MARKER, 100)])
    table.put_many([(b"new", MARKER, 200)])
    table.put_many([(b"again", MARKER, 100)])
    table.put_many([(b"again", MARKER, 300)])  # asked once more
    table.put_many([(b"back", MARKER, 100)])
    table.put_many([(b"back", VALUE, 150)])  # the user came back
    table.put_many([(b"gone", MARKER, 100)])
    table.put_many([(b"gone", None, 150)])
    assert table.expired_markers(100) == []
    assert table.expired_markers(200) == [b"old"]
    assert sorted(table.expired_markers(10**9)) == [b"again", b"new", b"old"]
