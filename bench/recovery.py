"""How long a sequence worker with many users takes from its start until it is ready: the changelog in bulk, into its table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.events import histories
from bench.path import Lab
from bench.programs import Program, metric, wait_until
from bench.topics import delete_topics, log_bytes, seed_changelog
from edge.kafka import Admin
from slipstream.stack.process import free_port
from stream.topics import create_topics


class Recovery(NamedTuple):
    """
    Attributes:
        ready_after_start_s: from the process's start.
        records: read from the changelog.
        load_s: of the slowest partition, from its fencing to its table.
        rss_bytes: of the worker when it is ready.
        bytes_per_user: what the worker grew by, over its users.
    """

    users: int
    ready_after_start_s: float
    records: int
    load_s: float
    rss_bytes: int
    bytes_per_user: float
    changelog_bytes: int

    @property
    def records_per_s(self) -> float:
        return self.records / self.load_s


def recoveries(
    lab: Lab, users: int, length: int, partitions: int = 4, store: str = "memory", times: int = 1
) -> Iterator[Recovery]:
    """Starts, and starts again, a worker on a changelog of so many users' sequences.

    Args:
        store: of SequenceConfig; with one on disk, all starts but the first find what the one before left.
    """
    names, directory = lab.fresh("recovery")
    kafka, admin = lab.kafka, Admin(lab.kafka)
    create_topics(kafka, names, partitions)
    now_ms = int(time.time() * 1000)
    seed_changelog(kafka, names, partitions, histories(users, length, now_ms))
    options: dict[str, object] = {
        "kafka": kafka.bootstrap_servers,
        "prefix": names.prefix,
        "data_dir": str(directory / "data"),
        "store": store,
    }
    empty = _empty_worker_bytes(lab, partitions)
    for _ in range(times):
        yield _once(users, options, directory, empty, log_bytes(lab.stack.data_dir, names.sequences))
    delete_topics(admin, [names.engagements, names.batches, names.sequences, names.dead_letters])


def _once(users: int, options: dict[str, object], directory: Path, empty_bytes: int, changelog_bytes: int) -> Recovery:
    port = free_port()
    with Program.worker("sequence", {**options, "metrics_port": port}, directory) as program:
        wait_until("it is ready", lambda: metric(port, 'slipstream_ready{stage="sequence"}') == 1, [program])
        ready_s = program.seconds
        wait_until("it has counted", lambda: _counted(port, users, str(options["store"])), [program], 30)
        records = metric(port, "slipstream_sequence_recovered_records_total")
        load_s = metric(port, "slipstream_sequence_recovery_seconds")
        assert records is not None
        assert load_s is not None
        rss = program.rss_bytes()
    return Recovery(users, ready_s, int(records), load_s, rss, (rss - empty_bytes) / users, changelog_bytes)


def _counted(port: int, users: int, store: str) -> bool:
    """Whether every user is in the tables. A table on disk only estimates how many it has."""
    tolerated = 0.0 if store == "memory" else 0.05
    return abs((metric(port, "slipstream_sequence_users") or 0.0) - users) <= tolerated * users


def _empty_worker_bytes(lab: Lab, partitions: int) -> int:
    names, directory = lab.fresh("empty")
    create_topics(lab.kafka, names, partitions)
    port = free_port()
    options = {"kafka": lab.kafka.bootstrap_servers, "prefix": names.prefix, "metrics_port": port}
    with Program.worker("sequence", options, directory) as program:
        wait_until("it is ready", lambda: metric(port, 'slipstream_ready{stage="sequence"}') == 1, [program])
        rss = program.rss_bytes()
    delete_topics(Admin(lab.kafka), [names.engagements, names.batches, names.sequences, names.dead_letters])
    return rss
