"""Both stores keep the same promises; RocksDB also across restarts. Run: pytest tests/stream/test_store.py"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import SequenceError, StoreError
from schemas.sequence import HEADER_BYTES, RECORD, Sequence, encode_sequence
from schemas.sequence_store import KEPT_KEY, Kept, decode_kept, encode_kept
from stream.kept import ChangelogState, why_unusable
from stream.store import MemoryTable, PartitionTable
from stream.store_rocksdb import CONDEMNED, DamagedError, Memory, RocksTable, condemned

VALUE = encode_sequence(Sequence(0, np.ones(2, RECORD)))
MARKER = encode_sequence(Sequence(50, np.empty(0, RECORD)))
KEPT = Kept(b"t" * 16, 3, 0, 1000)
MEMORY = Memory(16 << 20)

Make = Callable[[], PartitionTable]


def rocks(directory: Path) -> RocksTable:
    """As a worker opens it: gone on with, or new."""
    table = RocksTable(directory, MEMORY)
    if table.kept() is None:
        table.begin(KEPT)
    return table


@pytest.fixture(params=["memory", "rocksdb"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    numbers = count()
    return MemoryTable if request.param == "memory" else lambda: rocks(tmp_path / str(next(numbers)))


def test_put_get_and_tombstones(make: Make) -> None:
    table = make()
    table.put_many([(b"a", VALUE, 1), (b"b", VALUE, 1), (b"b", MARKER, 2)])
    assert table.get_many([b"b", b"x", b"a", b"a"]) == [MARKER, None, VALUE, VALUE]
    assert table.get_many([]) == []
    table.put_many([(b"a", None, 3), (b"never", None, 3)])
    assert dict(table.items()) == {b"b": MARKER}
    table.close()
    table.close()


def test_markers_expire_by_when_they_were_written(make: Make) -> None:
    table = make()
    table.put_many([(b"old", MARKER, 100), (b"new", MARKER, 200)])
    table.put_many([(b"again", MARKER, 100), (b"again", MARKER, 300)])  # asked once more
    table.put_many([(b"back", MARKER, 100)])
    table.put_many([(b"back", VALUE, 150)])  # the user came back
    table.put_many([(b"gone", MARKER, 100), (b"gone", None, 150)])
    assert table.expired_markers(100) == []
    assert table.expired_markers(200) == [b"old"]
    assert sorted(table.expired_markers(10**9)) == [b"again", b"new", b"old"]
    table.put_many([(b"old", None, 400)])
    assert table.expired_markers(200) == []
    assert table.expired_markers(201) == [b"new"]
    table.close()


USERS = st.sampled_from([b"a", b"b", b"c", "ü".encode(), b"\x7f", b"user-with-a-long-name"])
VALUES = st.one_of(
    st.none(),
    st.just(MARKER),
    st.integers(1, 300).map(lambda n: encode_sequence(Sequence(0, np.ones(n, RECORD)))),
)
WRITES = st.lists(st.tuples(USERS, VALUES, st.integers(0, 50)), max_size=8)


@pytest.mark.parametrize("store", ["memory", "rocksdb"])
@settings(max_examples=40)
@given(batches=st.lists(st.tuples(WRITES, st.booleans()), max_size=6))
def test_a_table_is_a_dict_whatever_is_written_and_however_often_it_is_opened(
    store: str, batches: list[tuple[list[tuple[bytes, bytes | None, int]], bool]]
) -> None:
    model: dict[bytes, bytes] = {}
    marked_ms: dict[bytes, int] = {}
    with tempfile.TemporaryDirectory() as directory:
        table: PartitionTable = MemoryTable() if store == "memory" else rocks(Path(directory) / "db")
        for n, (writes, closed) in enumerate(batches):
            table.put_many(writes, n + 1, 1000 + n)
            for user, value, written_ms in writes:
                marked_ms.pop(user, None)
                if value is None:
                    model.pop(user, None)
                    continue
                model[user] = value
                if len(value) == HEADER_BYTES:
                    marked_ms[user] = written_ms
            if closed and store == "rocksdb":
                table.close()
                table = rocks(Path(directory) / "db")
                assert isinstance(table, RocksTable)
                assert table.kept() == KEPT._replace(next_offset=n + 1, as_of_ms=1000 + n)
            assert dict(table.items()) == model
            users = [b"nobody", *model]
            assert table.get_many(users) == [model.get(user) for user in users]
            for before_ms in (0, 25, 51):
                expected = sorted(user for user, at in marked_ms.items() if at < before_ms)
                assert sorted(table.expired_markers(before_ms)) == expected
        table.close()


def test_writes_larger_than_a_write_and_than_the_write_buffers(tmp_path: Path) -> None:
    values = {b"user-%d" % n: bytes([n % 251]) * (n % 9000) for n in range(12_000)}  # 54 MB
    table = rocks(tmp_path / "db")
    table.put_many([(user, value, 0) for user, value in values.items()], 12_000, 2000)
    assert table.get_many(list(values)) == list(values.values())
    table.close()
    table = rocks(tmp_path / "db")
    assert dict(table.items()) == values
    assert abs(len(table) - len(values)) < 100  # an estimate
    table.close()


def test_keys_that_are_no_user_ids_do_not_reach_the_stores_own(tmp_path: Path) -> None:
    table = rocks(tmp_path / "db")
    table.put_many([(KEPT_KEY, b"foreign", 0), (b"\xffm", None, 0), (b"a", VALUE, 0)], 7)
    assert dict(table.items()) == {b"a": VALUE}
    table.close()
    table = rocks(tmp_path / "db")
    assert table.kept() == KEPT._replace(next_offset=7)
    table.close()


def test_a_second_process_cannot_open_a_database(tmp_path: Path) -> None:
    table = rocks(tmp_path / "db")
    with pytest.raises(StoreError, match="lock"):
        RocksTable(tmp_path / "db", MEMORY)
    table.close()


def test_a_damaged_database_is_condemned(tmp_path: Path) -> None:
    directory = tmp_path / "db"
    table = rocks(directory)
    table.put_many([(b"user-%d" % n, VALUE, 0) for n in range(3000)], 3000)
    table.close()
    for file in directory.glob("*.sst"):
        content = bytearray(file.read_bytes())
        if len(content) > 8000:
            content[1000:3000] = bytes(2000)
            file.write_bytes(content)
    table = RocksTable(directory, MEMORY)
    with pytest.raises(StoreError, match="start the worker again: it makes the table anew"):
        table.get_many([b"user-%d" % n for n in range(3000)])
    table.close()
    assert "Corruption" in (condemned(directory) or "")
    with pytest.raises(StoreError, match="Corruption"):  # a scan does not merely end there
        dict(rocks(directory).items())


def test_a_database_that_cannot_be_opened_is_damaged_or_the_disks_fault(tmp_path: Path) -> None:
    rocks(tmp_path / "db").close()
    (tmp_path / "db" / "CURRENT").write_text("nonsense")
    with pytest.raises(DamagedError):
        RocksTable(tmp_path / "db", MEMORY)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        RocksTable(tmp_path / "file" / "db", MEMORY)
    assert condemned(tmp_path / "file") is None
    assert CONDEMNED not in {path.name for path in (tmp_path / "db").iterdir()}


@given(
    st.builds(
        Kept,
        st.binary(min_size=16, max_size=16),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**63 - 1),
        st.integers(0, 2**63 - 1),
    ),
    st.data(),
)
def test_what_is_kept_comes_back_or_is_refused(kept: Kept, data: st.DataObject) -> None:
    value = encode_kept(kept)
    assert decode_kept(value) == kept
    at, bit = data.draw(st.integers(0, len(value) - 1)), data.draw(st.integers(0, 7))
    damaged = bytearray(value)
    damaged[at] ^= 1 << bit
    with pytest.raises(SequenceError):
        decode_kept(bytes(damaged))
    with pytest.raises(SequenceError):
        decode_kept(value[:at])


HOUR_MS = 3_600_000
STATE = ChangelogState(b"t" * 16, 3, 10, 100, 24 * HOUR_MS, 1000 * HOUR_MS)
GOOD = Kept(b"t" * 16, 3, 50, 999 * HOUR_MS)


@pytest.mark.parametrize(
    ("kept", "state", "reason"),
    [
        (GOOD, STATE, None),
        (GOOD._replace(next_offset=10), STATE, None),
        (GOOD._replace(as_of_ms=988 * HOUR_MS), STATE, None),
        (GOOD._replace(as_of_ms=1000 * HOUR_MS + 50_000), STATE, None),
        (GOOD._replace(next_offset=100, as_of_ms=0), STATE, None),  # nothing was written since
        (GOOD._replace(topic_id=b"u" * 16), STATE, "made anew"),
        (GOOD._replace(partition=2), STATE, "of partition 2"),
        (GOOD._replace(next_offset=101), STATE, "ends at 100"),
        (GOOD._replace(next_offset=9), STATE, "begins at 10"),
        (GOOD._replace(as_of_ms=988 * HOUR_MS - 1), STATE, "tombstones"),
        (GOOD._replace(as_of_ms=1001 * HOUR_MS), STATE, "clock"),
        (GOOD, STATE._replace(delete_retention_ms=None), "DescribeConfigs"),
        (GOOD, STATE._replace(delete_retention_ms=HOUR_MS), "tombstones"),
    ],
)
def test_why_a_kept_table_is_not_used(kept: Kept, state: ChangelogState, reason: str | None) -> None:
    found = why_unusable(kept, state)
    assert (found is None) if reason is None else (found is not None and reason in found)
