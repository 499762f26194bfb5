"""The same events through the same job, three ways: ours, stock Faust's and Quix Streams'. What each costs in CPU time.

A backlog is measured: everything is started and owns its partitions, then the whole workload becomes visible at once
(bench.topics.filled). CPU time is that of the contender's own processes from there to the last commit; the broker's is nobody's.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.environments import CONTENDERS
from bench.events import Workload, histories, raw_events
from bench.programs import Program, caught_up, metric, owns_partitions, wait_until
from bench.topics import delete_topics, fill, filled, log_bytes, seed_changelog
from edge.kafka import Admin, KafkaConfig
from schemas.errors import MismatchError
from schemas.names import Names
from schemas.sequence import DEFAULT_CAPACITY, pack_sequence
from slipstream.stack import Stack
from slipstream.stack.process import free_port
from stream.oracle import read_sequences
from stream.topics import create_topics

#: Histories end here; the events of a run follow.
_BEFORE_NOW_MS = 3_600_000


@dataclass(frozen=True)
class Cost:
    """
    Attributes:
        seconds: from the first event's visibility to the last commit.
        cpu_s: CPU seconds by process.
        changelog_bytes: that the events added to the changelog's log on disk.
        rss_bytes: at the end, by process.
    """

    events: int
    seconds: float
    cpu_s: Mapping[str, float]
    changelog_bytes: int = 0
    rss_bytes: Mapping[str, int] = field(default_factory=dict)

    @property
    def events_per_cpu_s(self) -> float:
        return self.events / sum(self.cpu_s.values())

    def as_details(self) -> dict[str, object]:
        return {
            "events": self.events,
            "seconds": round(self.seconds, 2),
            "cpu_s": {name: round(cpu_s, 2) for name, cpu_s in self.cpu_s.items()},
            "events_per_cpu_s": round(self.events_per_cpu_s),
            "changelog_bytes_per_event": round(self.changelog_bytes / self.events, 1),
            "rss_mb": {name: round(rss / 1e6) for name, rss in self.rss_bytes.items()},
        }


@dataclass(frozen=True)
class Lab:
    """Where it is measured: a broker, and a directory for logs and state."""

    stack: Stack
    directory: Path

    @property
    def kafka(self) -> KafkaConfig:
        return KafkaConfig(self.stack.kafka_bootstrap)

    def fresh(self, name: str) -> tuple[Names, Path]:
        """Names and a directory that nobody used before."""
        prefix = f"bench-{name}-{uuid.uuid4().hex[:6]}"
        directory = self.directory / prefix
        directory.mkdir(parents=True)
        return Names(prefix), directory


def ours(
    lab: Lab,
    workload: Workload,
    partitions: int = 4,
    length: int = DEFAULT_CAPACITY,
    ingest: Mapping[str, object] | None = None,
    sequence: Mapping[str, object] | None = None,
) -> Cost:
    """One ingest and one sequence worker; every user begins with a sequence of `length`, which is the capacity too.

    Args:
        ingest, sequence: more fields of IngestConfig and SequenceConfig.

    Raises:
        MismatchError: a sequence is not what it must be: a figure of a run that computed something else is worth nothing.
    """
    names, directory = lab.fresh("ours")
    kafka, admin, port = lab.kafka, Admin(lab.kafka), free_port()
    create_topics(kafka, names, partitions)
    first_ms = int(time.time() * 1000) - _BEFORE_NOW_MS
    seed_changelog(kafka, names, partitions, histories(workload.users, length, first_ms, workload.seed))
    keys, values, _, _ = raw_events(workload, first_ms)
    common = {"kafka": kafka.bootstrap_servers, "prefix": names.prefix}
    with ExitStack() as stack:
        ingester = stack.enter_context(Program.worker("ingest", {**common, **(ingest or {})}, directory))
        own = {"capacity": length, "metrics_port": port, **(sequence or {})}
        sequencer = stack.enter_context(Program.worker("sequence", {**common, **own}, directory))
        programs = [ingester, sequencer]
        wait_until(
            "the workers are ready",
            lambda: (
                metric(port, 'slipstream_ready{stage="sequence"}') == 1
                and owns_partitions(admin, names.sequence_app, names.batches, partitions)
                and owns_partitions(admin, names.ingest_group, names.engagements, partitions)
            ),
            programs,
        )
        seeded = log_bytes(lab.stack.data_dir, names.sequences)
        with filled(kafka, names.engagements, keys, values):
            before = [program.cpu_s() for program in programs]
        started_s = time.monotonic()
        # Ingest commits when its batches are delivered, so then the sequence stage's lag says all.
        wait_until(
            "all events are in the changelog",
            lambda: (
                caught_up(admin, names.ingest_group, names.engagements, markers=1)
                and caught_up(admin, names.sequence_app, names.batches)
            ),
            programs,
        )
        seconds = time.monotonic() - started_s
        cpu = {p.name: p.cpu_s() - b for p, b in zip(programs, before, strict=True)}
        rss = {p.name: p.rss_bytes() for p in programs}
    written = log_bytes(lab.stack.data_dir, names.sequences) - seeded
    _check_some(lab.kafka, names, workload, length, first_ms)
    delete_topics(admin, [names.engagements, names.batches, names.sequences, names.dead_letters])
    return Cost(workload.events, seconds, cpu, written, rss)


def contender(lab: Lab, name: str, python: Path | str, workload: Workload, partitions: int = 4) -> Cost:
    """A program of bench/contenders on the same events; every user begins with a full sequence."""
    names, directory = lab.fresh(name)
    kafka, admin, topic, group = lab.kafka, Admin(lab.kafka), names.engagements, f"{names.prefix}-app"
    create_topics(kafka, names, partitions)
    keys, values, _, _ = raw_events(workload, int(time.time() * 1000) - _BEFORE_NOW_MS)
    arguments = [kafka.bootstrap_servers, group, topic, str(directory / "state"), str(partitions)]
    command = [str(python), str(CONTENDERS / f"{name}_app.py"), *arguments]
    if name == "faust":
        command += ["worker", "-l", "warn"]
    with Program(name, command, directory) as program:
        wait_until("it is ready", lambda: owns_partitions(admin, group, topic, partitions), [program])
        before = program.cpu_s()
        if name == "faust":  # reads what is not committed too: it has few events, which are there at once
            fill(kafka, topic, keys, values)
        else:
            with filled(kafka, topic, keys, values):
                before = program.cpu_s()
        started_s = time.monotonic()
        markers = 0 if name == "faust" else 1
        wait_until("all events are committed", lambda: caught_up(admin, group, topic, markers), [program], 600)
        seconds = time.monotonic() - started_s
        cpu, rss = {name: program.cpu_s() - before}, {name: program.rss_bytes()}
    changelogs = [t for t in admin.client.list_topics(timeout=10).topics if group in t and "changelog" in t]
    written = sum(log_bytes(lab.stack.data_dir, changelog) for changelog in changelogs)
    delete_topics(admin, [names.engagements, names.batches, names.sequences, names.dead_letters, *changelogs])
    return Cost(workload.events, seconds, cpu, written, rss)


def faust(lab: Lab, workload: Workload, partitions: int = 4) -> Cost:
    return contender(lab, "faust", sys.executable, workload, partitions)


def quix(lab: Lab, python: Path, workload: Workload, partitions: int = 4) -> Cost:
    return contender(lab, "quix", python, workload, partitions)


def _check_some(
    kafka: KafkaConfig, names: Names, workload: Workload, length: int, first_ms: int, users: int = 200
) -> None:
    """Rebuilds some users' sequences from the events."""
    _, _, records, who = raw_events(workload, first_ms)
    found = read_sequences(kafka, names).sequences
    if len(found) != workload.users:
        raise MismatchError(f"topic {names.sequences}: {len(found)} sequences of {workload.users} users")
    every = max(1, workload.users // users)
    for user, (key, history) in enumerate(histories(workload.users, length, first_ms, workload.seed)):
        if user % every:
            continue
        news = records[who == user]
        value = pack_sequence(0, (history.tobytes() + news.tobytes())[-length * records.itemsize :])
        if found[key].value != value:
            raise MismatchError(f"topic {names.sequences}: user {key!r} has not the sequence that the events make")
