"""Nothing of a partition is read or written before its table is whole. Run: pytest tests/integration/test_recovery.py"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer

from schemas.batch import Batch, encode_batch
from schemas.sequence import RECORD, Sequence, decode_sequence, encode_sequence
from stream.partitioner import partitions_of
from tests.integration.streaming import PARTITIONS, Deployment, Worker, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

USERS = 40_000
OLD_MS, NEW_MS = 1, 5


def records(at_ms: int, n: int = 1) -> Any:
    records = np.zeros(n, RECORD)
    records["timestamp_ms"] = at_ms
    return records


def write_changelog(deployment: Deployment, users: list[bytes], partition: int) -> None:
    producer = Producer({"bootstrap.servers": deployment.kafka.bootstrap_servers, "linger.ms": 50})
    value = encode_sequence(Sequence(0, records(OLD_MS)))
    for user in users:
        producer.produce(deployment.names.sequences, value, user, partition)
    assert producer.flush(30) == 0


def send_batches(deployment: Deployment, users: list[bytes], partition: int) -> None:
    for start in range(0, len(users), 1000):
        some = users[start : start + 1000]
        n = len(some)
        batch = Batch(some, np.full(n, 1000), np.zeros(n, np.int64), np.ones(n, np.uint32), records(NEW_MS, n))
        deployment.send([encode_batch(batch)], deployment.names.batches, partition=partition)


def store_options(store: str, directory: Path) -> dict[str, Any]:
    return {"store": store, "data_dir": str(directory)} if store == "rocksdb" else {}


@pytest.mark.parametrize("store", ["memory", "rocksdb"])
def test_no_read_or_write_of_a_partition_before_its_table_is_whole(
    kafka_bootstrap: str, prefix: str, tmp_path: Path, store: str
) -> None:
    """Batches wait for users whose sequences are all over a changelog that takes a while to read. Whatever is written without
    having read the user's record is short, and stays in the log for us to see."""
    deployment = Deployment(kafka_bootstrap, prefix, tmp_path)
    everybody = [b"user-%d" % n for n in range(USERS)]
    home = partitions_of(everybody, PARTITIONS)
    users = [[u for u, p in zip(everybody, home, strict=True) if p == partition] for partition in range(PARTITIONS)]
    for partition in range(PARTITIONS):
        write_changelog(deployment, users[partition], partition)
        send_batches(deployment, users[partition], partition)
    before = deployment.ends(deployment.names.sequences)
    with deployment:
        # The first is interrupted while it loads, and begins again with the partitions that it keeps.
        workers: list[Worker] = []
        for name in ("a", "b"):
            workers.append(deployment.start("sequence", **store_options(store, tmp_path / name)))
            if name == "a":
                workers[0].wait_for_partitions()
        workers[1].wait_for_partitions()
        wait_until("sequence has caught up", lambda: deployment.lag("sequence") == 0)
        written = [
            m for m in deployment.read(deployment.names.sequences) if (m.offset() or 0) >= before[m.partition() or 0]
        ]
        times = {tuple(decode_sequence(m.value() or b"").records["timestamp_ms"].tolist()) for m in written}
        assert times == {(OLD_MS, NEW_MS)}
        assert sorted(m.key() or b"" for m in written) == sorted(everybody)
        for worker in workers:
            assert re.search(r"users from \d+ changelog records", worker.text())
            assert worker.stop() == 0
