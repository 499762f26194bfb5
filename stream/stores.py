"""The store that a worker is told to use."""

from __future__ import annotations

from pathlib import Path

from schemas.errors import PrerequisiteError
from stream.config import SequenceConfig
from stream.store import MemoryStores, Stores


def open_stores(config: SequenceConfig, data_dir: Path) -> Stores:
    """The stores that `config.store` names; on disk they are below `data_dir`, which no other worker uses.

    Raises:
        PrerequisiteError: RocksDB's package is not installed.
    """
    if config.store == "memory":
        return MemoryStores()
    try:
        from stream.stores_rocksdb import RocksStores
    except ModuleNotFoundError as error:
        if error.name != "rocksdict":
            raise
        raise PrerequisiteError(
            "sequence_store rocksdb needs the package rocksdict: pip install 'slipstream-embeddings[rocksdb]'"
        ) from None
    return RocksStores(config.kafka, config.names.sequences, data_dir / "rocksdb", config.store_memory_bytes)
