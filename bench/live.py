"""The whole way, running: ingest, sequence and encode beside their Kafka and Redis, and every user with a state.

The encoder itself says when a state was readable (its refresh log); an event's arrival is the broker's time of the raw record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.events import Workload, histories, raw_events
from bench.models import random_bundle
from bench.path import Lab
from bench.programs import Program, caught_up, cpu_s_by_name, metric, owns_partitions, wait_until
from bench.sending import send
from bench.topics import delete_topics, filled, seed_changelog
from edge.kafka import Admin
from encoder.bundle import Bundle
from encoder.store_redis import connect
from schemas.names import Names
from schemas.sequence import Records
from slipstream.stack.process import free_port
from stream.topics import create_topics

Say = Callable[[str], None]

#: Histories end so long ago. What is sent happened since, one millisecond after the other: room for seven million events.
_BEFORE_NOW_MS = 7_200_000
_READY_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class LiveConfig:
    """
    Attributes:
        lengths: each user begins with a sequence of between so many events, drawn uniformly.
        workers: processes of each stage.
        hot_cache_bytes: of each encoder; None: room for every state.
    """

    preset: str
    users: int
    lengths: tuple[int, int]
    partitions: int = 4
    workers: int = 1
    hot_cache_bytes: int | None = None


class Passage(NamedTuple):
    """What became of events that were sent together. Refreshes, `(n,)`: fewer than events where a user's were folded together.

    Attributes:
        began_ms: Unix time at which sending began.
        seconds: from there until the last state was readable.
        arrived_ms: of a refresh, the arrival of the oldest event that it brought.
        took_ms: from there until its state was readable.
        kinds: refreshes, by what they took.
        cpu_s: by stage, and of Redis, from the first event to the last commit.
        cores: CPU seconds a second, by program, while events were sent; empty for a backlog.
    """

    events: int
    began_ms: float
    seconds: float
    arrived_ms: NDArray[np.float64]
    took_ms: NDArray[np.float64]
    kinds: dict[str, int]
    cpu_s: dict[str, float]
    cores: dict[str, float]

    @property
    def events_per_s(self) -> float:
        return self.events / self.seconds


class _Line(msgspec.Struct, gc=False):
    arrived_ms: int
    written_ms: int
    kind: str


@contextmanager
def live_path(config: LiveConfig, lab: Lab, say: Say) -> Iterator[LivePath]:
    """The stages have started, own their partitions, and every user's first state is in Redis. All is removed in the end."""
    names, directory = lab.fresh("live")
    bundle = random_bundle(directory / "model", config.preset)
    admin = Admin(lab.kafka)
    create_topics(lab.kafka, names, config.partitions)
    end_ms = int(time.time() * 1000) - _BEFORE_NOW_MS
    seed_changelog(lab.kafka, names, config.partitions, _histories(config, end_ms))
    say(f"first states of {config.users:,} users")
    with ExitStack() as stack:
        path = LivePath(config, lab, names, directory, bundle, end_ms)
        path.start(stack)
        yield path
    with connect(lab.stack.redis_url) as client:
        client.flushdb()
    delete_topics(admin, [names.engagements, names.batches, names.sequences, names.dead_letters])


def _histories(config: LiveConfig, end_ms: int) -> Iterator[tuple[bytes, Records]]:
    shortest, longest = config.lengths
    lengths = np.random.default_rng(0).integers(shortest, longest + 1, config.users).tolist()
    for (key, records), length in zip(histories(config.users, longest, end_ms), lengths, strict=True):
        yield key, records[-length:]


class LivePath:
    """Sends events, each of the next user in turn, and says what became of them."""

    def __init__(
        self, config: LiveConfig, lab: Lab, names: Names, directory: Path, bundle: Bundle, first_ms: int
    ) -> None:
        self.bundle = bundle
        self._config, self._lab, self._names, self._directory = config, lab, names, directory
        self._admin = Admin(lab.kafka)
        self._refreshes = directory / "refreshes.jsonl"
        self._programs: list[Program] = []
        self._first_ms = first_ms
        self._sent = 0

    def start(self, stack: ExitStack) -> None:
        config, names = self._config, self._names
        hot = config.hot_cache_bytes
        if hot is None:
            hot = 2 * config.users * self.bundle.layout.value_bytes(self.bundle.shape.context)
        encode: dict[str, object] = {
            "redis_url": self._lab.stack.redis_url,
            "bundle": str(self.bundle.directory),
            "refresh_log": str(self._refreshes),
            "hot_cache_bytes": hot,
        }
        ports = [free_port() for _ in range(config.workers)]
        options: dict[str, list[dict[str, object]]] = {
            "ingest": [{}] * config.workers,
            "sequence": [{"metrics_port": port} for port in ports],
            "encode": [encode] * config.workers,
        }
        common = {"kafka": self._lab.kafka.bootstrap_servers, "prefix": names.prefix}
        for stage, workers in options.items():
            for own in workers:
                program = Program.worker(stage, {**common, **own}, self._directory)
                self._programs.append(stack.enter_context(program))

        def ready() -> bool:
            return (
                all(metric(port, 'slipstream_ready{stage="sequence"}') == 1 for port in ports)
                and owns_partitions(self._admin, names.ingest_group, names.engagements, config.partitions)
                and caught_up(self._admin, names.encoder_group(self.bundle.model_id), names.sequences)
            )

        wait_until("every user has a state", ready, self._programs, _READY_TIMEOUT_S)

    def send(self, due_s: NDArray[np.float64]) -> Passage:
        """`(n,)`, ascending: when each of the next n events is due, seconds from now. Returns when all are in states."""
        keys, values = self._next_events(len(due_s))
        logged, cpu_s = self._logged_bytes(), self._cpu_s()
        sent = send(self._lab.kafka, self._names.engagements, keys, values, due_s, self._programs)
        return self._passed(len(keys), sent.began_ms, logged, cpu_s, sent.cores, markers=0)

    def backlog(self, events: int) -> Passage:
        """The next events become visible at once."""
        keys, values = self._next_events(events)
        logged = self._logged_bytes()
        with filled(self._lab.kafka, self._names.engagements, keys, values):
            cpu_s = self._cpu_s()
        return self._passed(events, time.time() * 1000, logged, cpu_s, {}, markers=1)

    def _next_events(self, events: int) -> tuple[Sequence[bytes], Sequence[bytes]]:
        workload = Workload(events, self._config.users, "in turn", seed=self._sent)
        keys, values, _, _ = raw_events(workload, self._first_ms + self._sent)
        self._sent += events
        return keys, values

    def _passed(
        self,
        events: int,
        began_ms: float,
        logged: int,
        before_s: dict[str, float],
        cores: dict[str, float],
        markers: int,
    ) -> Passage:
        names = self._names

        def all_in_states() -> bool:
            # Ingest commits what is delivered, and so do the others: asked one after the other, their lags say all.
            return (
                caught_up(self._admin, names.ingest_group, names.engagements, markers)
                and caught_up(self._admin, names.sequence_app, names.batches)
                and caught_up(self._admin, names.encoder_group(self.bundle.model_id), names.sequences)
            )

        wait_until("every event is in a state", all_in_states, self._programs, 600)
        cpu_s = {stage: seconds - before_s[stage] for stage, seconds in self._cpu_s().items()}
        with self._refreshes.open("rb") as log:
            log.seek(logged)
            lines = msgspec.json.Decoder(_Line).decode_lines(log.read())
        arrived_ms = np.array([line.arrived_ms for line in lines], np.float64)
        written_ms = np.array([line.written_ms for line in lines], np.float64)
        kinds = [line.kind for line in lines]
        return Passage(
            events,
            began_ms,
            (float(written_ms.max()) - began_ms) / 1000,
            arrived_ms,
            written_ms - arrived_ms,
            {kind: kinds.count(kind) for kind in sorted(set(kinds))},
            cpu_s,
            cores,
        )

    def _logged_bytes(self) -> int:
        return self._refreshes.stat().st_size

    def _cpu_s(self) -> dict[str, float]:
        with connect(self._lab.stack.redis_url) as client:
            redis = client.info("cpu")
        return {
            **cpu_s_by_name(self._programs),
            "redis": float(redis["used_cpu_user"]) + float(redis["used_cpu_sys"]),
        }
