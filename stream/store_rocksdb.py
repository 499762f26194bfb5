"""The sequences of a partition on disk, in RocksDB: for tables larger than memory, and for restarts that read only what is new.

The write-ahead log is off: the changelog is it. Values and the offset that they are of go through the same memtable, in the order
of the commits, so a crash loses the newest of both together; what was lost is read from the changelog again.

Values of a kilobyte and more lie in blob files, outside the tree that is compacted: a long sequence is written anew at each of
its events, and would be again at each compaction.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    RdictIter,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from schemas.errors import StoreError
from schemas.sequence import HEADER_BYTES
from schemas.sequence_store import KEPT_KEY, MARKED, MARKER_PREFIX, OWN, Kept, decode_kept, encode_kept
from stream.store import Markers, PartitionTable

T = TypeVar("T")

#: In a database's directory, with the reason: it is not to be used any more.
CONDEMNED = "condemned"
#: Bytes that one call writes: while it lasts, no other thread of this process gets to run Python.
_WRITE_BYTES = 1 << 20
_WRITE_BUFFER_BYTES = 16 << 20
_BLOB_MIN_BYTES = 1 << 10
_BLOB_FILE_BYTES = 64 << 20
#: Of each database: a worker may have many partitions.
_OPEN_FILES = 64
_STALL_S = 0.005
#: What is in the write buffers for longer goes to disk, full or not: a kept offset must not grow too old.
_FLUSH_S = 300.0


class Memory:
    """What all databases of a worker share, so that it is bounded: a cache of blocks, which the write buffers are charged to."""

    def __init__(self, limit_bytes: int) -> None:
        self.cache = Cache(limit_bytes)
        self.write_buffers = WriteBufferManager.new_write_buffer_manager_with_cache(limit_bytes // 2, False, self.cache)


class RocksTable(PartitionTable):
    """A database. Not to be shared by processes: RocksDB locks it.

    Raises:
        StoreError: the disk does not let it; also from every other method.
        DamagedError: what is there cannot be read; from other methods it comes as StoreError, and the database is condemned.
    """

    blocks = True

    def __init__(self, directory: Path, memory: Memory) -> None:
        self._directory = directory
        self._closing = threading.Lock()
        self._writing = WriteOptions()
        self._writing.disable_wal = True  # type: ignore[method-assign, assignment]  # a property, whatever its stub says
        self._writing.no_slowdown = True  # a stalled write would hold Python's lock; see _write
        options = _options(memory)
        # Without column_families an existing database would be opened with the options, and a cache, of last time.
        self._db = self._asked(lambda: Rdict(str(directory), options, {"default": options}), opening=True)
        self._open = True
        self._flushed_s = time.monotonic()
        self._kept: Kept | None = None
        self._markers = Markers()

    def __len__(self) -> int:
        with self._closing:
            if not self._open:
                return 0
            estimate: int = self._db.property_int_value("rocksdb.estimate-num-keys") or 0
            return max(0, estimate - 1 - len(self._markers))

    def kept(self) -> Kept | None:
        """What the database is of, as it says; None in a new one. Reads the markers, too.

        Raises:
            SequenceError: it says nothing that this build understands.
        """
        value = self._asked(lambda: self._db.get(KEPT_KEY), opening=True)
        if value is not None:
            self._kept = decode_kept(value)
            self._asked(self._read_markers, opening=True)
        return self._kept

    def begin(self, kept: Kept) -> None:
        """Say of a new database, on disk, what it is of."""
        self._kept = kept
        self.put_many([])
        self._asked(self._db.flush)

    def get_many(self, users: Sequence[bytes]) -> list[bytes | None]:
        with self._closing:
            values: list[bytes | None] = self._asked(lambda: cast("Any", self._db.get(list(users))))
            return values

    def put_many(
        self,
        writes: Iterable[tuple[bytes, bytes | None, int]],
        next_offset: int | None = None,
        as_of_ms: int | None = None,
    ) -> None:
        assert self._kept is not None, "kept() or begin() comes first"
        with self._closing:
            kept, markers = self._kept, self._markers
            changes: list[tuple[bytes, bytes | None]] = []
            size_bytes = 0
            for user, value, written_ms in writes:
                if user[:1] == OWN:
                    continue  # no user id is like this: somebody's record with a key of another kind
                changes.append((user, value))
                if value is not None and len(value) == HEADER_BYTES:
                    changes.append((MARKER_PREFIX + user, MARKED.pack(written_ms)))
                    markers.note(user, written_ms)
                elif user in markers:
                    changes.append((MARKER_PREFIX + user, None))
                    markers.drop(user)
                size_bytes += len(value or b"")
                if (
                    size_bytes >= _WRITE_BYTES
                ):  # the kept offset comes with the last ones: it is behind until then, no harm done
                    self._write(changes)
                    changes, size_bytes = [], 0
            self._kept = kept._replace(
                next_offset=kept.next_offset if next_offset is None else next_offset,
                as_of_ms=kept.as_of_ms if as_of_ms is None else as_of_ms,
            )
            changes.append((KEPT_KEY, encode_kept(self._kept)))
            self._write(changes)
            if time.monotonic() - self._flushed_s > _FLUSH_S:
                self._asked(self._db.flush)
                self._flushed_s = time.monotonic()

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        cursor = self._db.iter()
        cursor.seek_to_first()
        return self._from(cursor, lambda key: key[:1] != OWN)  # FF comes last

    def expired_markers(self, before_ms: int) -> list[bytes]:
        return self._markers.expired(before_ms)

    def close(self) -> None:
        with self._closing:
            if self._open:
                self._open = False
                try:
                    self._asked(self._db.flush)
                finally:
                    self._db.close()

    def discard(self) -> None:
        """Close without keeping anything: the directory is about to be removed."""
        with self._closing:
            self._open = False
            self._db.close()

    def _read_markers(self) -> None:
        cursor = self._db.iter()
        cursor.seek(MARKER_PREFIX)
        for key, value in self._from(cursor, lambda key: key.startswith(MARKER_PREFIX)):
            self._markers.note(key[len(MARKER_PREFIX) :], MARKED.unpack(value)[0])

    def _from(self, cursor: RdictIter, belongs: Callable[[bytes], bool]) -> Iterator[tuple[bytes, bytes]]:
        while cursor.valid() and belongs(key := cursor.key()):
            yield key, cursor.value()
            cursor.next()
        self._asked(cursor.status)  # an iterator that meets damage merely ends

    def _write(self, changes: list[tuple[bytes, bytes | None]]) -> None:
        """All of them or none."""

        def write() -> None:
            while True:
                batch = WriteBatch(raw_mode=True)
                for key, value in changes:
                    if value is None:
                        batch.delete(key)
                    else:
                        batch.put(key, value)
                try:
                    return self._db.write(batch, self._writing)
                except Exception as error:
                    if "stall" not in str(error).lower():
                        raise
                time.sleep(_STALL_S)  # RocksDB has to catch up: wait for it here, where others can run

        self._asked(write)

    def _asked(self, call: Callable[[], T], opening: bool = False) -> T:
        try:
            return call()
        except Exception as error:  # rocksdict raises nothing more special
            message = str(error)
            if "Corruption" not in message:
                raise StoreError(
                    f"{self._directory}: {message}; make room, or repair the disk, and start again"
                ) from None
            if opening:
                raise DamagedError(message) from None
            with suppress(OSError):  # it will be found again
                (self._directory / CONDEMNED).write_text(message)
            raise StoreError(
                f"{self._directory}: {message}; start the worker again: it makes the table anew from the changelog"
            ) from None


class DamagedError(StoreError):
    """A database that RocksDB cannot read."""


def _options(memory: Memory) -> Options:
    options, blocks = Options(raw_mode=True), BlockBasedOptions()
    options.create_if_missing(True)
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(3)
    options.set_write_buffer_manager(memory.write_buffers)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_enable_blob_files(True)
    options.set_min_blob_size(_BLOB_MIN_BYTES)
    options.set_blob_file_size(_BLOB_FILE_BYTES)
    options.set_blob_compression_type(DBCompressionType.lz4())
    options.set_enable_blob_gc(True)
    options.set_blob_gc_age_cutoff(0.25)
    options.set_blob_gc_force_threshold(0.5)
    options.set_max_open_files(_OPEN_FILES)
    options.set_max_background_jobs(2)
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1 << 20)
    options.set_stats_dump_period_sec(0)
    blocks.set_block_cache(memory.cache)
    blocks.set_cache_index_and_filter_blocks(True)
    blocks.set_bloom_filter(10, False)
    blocks.set_block_size(16 << 10)
    blocks.set_format_version(5)
    options.set_block_based_table_factory(blocks)
    return options


def condemned(directory: Path) -> str | None:
    """Why a database is not to be used any more, if it is not."""
    try:
        return (directory / CONDEMNED).read_text()
    except OSError:
        return None
