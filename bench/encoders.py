"""Encoder workers under measurement, on one changelog: what its records cost them, from visibility to states in Redis.

CPU time is that of the workers from there to their last commit; Redis' and the broker's are nobody's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bench.path import Lab
from bench.programs import Program, caught_up, metrics, wait_until
from bench.topics import filled
from edge.kafka import Admin
from encoder.bundle import Bundle
from schemas.names import Names
from schemas.sequence import Records, pack_sequence
from slipstream.stack.process import free_port

_LAG = "slipstream_lag_messages{"
_REMAINING = 'slipstream_encode_backfill_remaining{partition="'
_PART = 'slipstream_encode_part_seconds_total{part="'
_KIND = 'slipstream_encode_refreshes_total{kind="'
#: Parts of a worker's time that are no work.
_IDLE = ("wait",)

Row = tuple[bytes, Records]
"""A user, and the sequence that its next changelog record holds."""
Show = Callable[[Sequence[Row]], "Cost"]
"""Lets a changelog record of each row become visible, all at once; says what that cost until every state was up to date."""


class Cost(NamedTuple):
    """Of one round.

    Attributes:
        records: of the changelog.
        seconds: from the records' visibility until the last state was readable.
        cpu_s: of all workers.
        parts: seconds of their loops, by part.
        kinds: users, by what their refresh took.
    """

    records: int
    seconds: float
    cpu_s: float
    parts: dict[str, float]
    kinds: dict[str, int]

    @property
    def users_per_s(self) -> float:
        return self.records / self.seconds

    @property
    def cpu_us_per_record(self) -> float:
        return 1e6 * self.cpu_s / self.records

    @property
    def overhead_share(self) -> float:
        """Of a worker's busy time, what is not ONNX Runtime's."""
        return 1 - self.parts["run"] / sum(self.parts.values())

    def as_details(self) -> dict[str, Any]:
        return {
            "records": self.records,
            "users_per_s": round(self.users_per_s),
            "cpu_us_per_record": round(self.cpu_us_per_record, 1),
            "share": {part: round(s / sum(self.parts.values()), 3) for part, s in sorted(self.parts.items())},
            "kinds": self.kinds,
        }


class Encoder(NamedTuple):
    """A worker process, and where its metrics are."""

    program: Program
    port: int

    @classmethod
    def start(
        cls, lab: Lab, names: Names, bundle: Bundle, refresh_log: Path, options: Mapping[str, object], log_dir: Path
    ) -> Encoder:
        """
        Args:
            options: more fields of EncodeConfig.
        """
        port = free_port()
        common = {
            "kafka": lab.kafka.bootstrap_servers,
            "prefix": names.prefix,
            "redis_url": lab.stack.redis_url,
            "bundle": str(bundle.directory),
            "refresh_log": str(refresh_log),
            "metrics_port": port,
        }
        return cls(Program.worker("encode", {**common, **options}, log_dir), port)

    def partitions(self) -> int:
        """That it owns."""
        return sum(name.startswith(_LAG) for name in metrics(self.port))

    def left(self) -> float:
        """Offsets that are still to be filled from."""
        return sum(value for name, value in metrics(self.port).items() if name.startswith(_REMAINING))


class Encoders:
    """Starts workers on a changelog, and shows them records."""

    def __init__(self, lab: Lab, names: Names, bundle: Bundle, partitions: int, directory: Path) -> None:
        """
        Args:
            directory: for logs.
        """
        self._lab, self._names, self._bundle, self._partitions = lab, names, bundle, partitions
        self._directory = directory
        self._refresh_log = directory / "refreshes.jsonl"
        self._admin = Admin(lab.kafka)

    @contextmanager
    def started(self, count: int, options: Mapping[str, object]) -> Iterator[Show]:
        """Worker processes that have caught up and share the partitions."""
        with ExitStack() as stack:
            workers = []
            for _ in range(count):
                worker = Encoder.start(
                    self._lab, self._names, self._bundle, self._refresh_log, options, self._directory
                )
                stack.enter_context(worker.program)
                workers.append(worker)
            wait_until("the encoders own all partitions", lambda: self._shared(workers), [p for p, _ in workers])
            yield lambda rows: self._show(workers, rows)

    def _shared(self, workers: Sequence[Encoder]) -> bool:
        """Each worker owns a part, and all is committed."""
        owned = [worker.partitions() for worker in workers]
        return all(owned) and sum(owned) == self._partitions

    def _show(self, workers: Sequence[Encoder], rows: Sequence[Row]) -> Cost:
        """A record of each row becomes visible; the cost until all states say so."""
        programs = [program for program, _ in workers]
        topic, group = self._names.sequences, self._names.encoder_group(self._bundle.model_id)
        keys, values = [user for user, _ in rows], [pack_sequence(0, records.tobytes()) for _, records in rows]
        before, logged = _taken(workers), self._refresh_log.stat().st_size
        with filled(self._lab.kafka, topic, keys, values):
            cpu_s = sum(program.cpu_s() for program in programs)
        started_ms = time.time() * 1000
        wait_until("all is refreshed", lambda: caught_up(self._admin, group, topic), programs, 600)
        cpu_s = sum(program.cpu_s() for program in programs) - cpu_s
        with self._refresh_log.open("rb") as log:
            log.seek(logged)
            written_ms = max(msgspec.json.decode(line)["written_ms"] for line in log)
        time.sleep(1.1)  # the workers tell their parts once a second
        spent = {key: value - before.get(key, 0.0) for key, value in _taken(workers).items()}
        parts = {key.removeprefix(_PART)[:-2]: s for key, s in spent.items() if key.startswith(_PART)}
        kinds = {key.removeprefix(_KIND)[:-2]: int(n) for key, n in spent.items() if key.startswith(_KIND) and n}
        return Cost(
            len(rows),
            (written_ms - started_ms) / 1000,
            cpu_s,
            {p: s for p, s in parts.items() if p not in _IDLE},
            kinds,
        )


def _taken(workers: Sequence[Encoder]) -> dict[str, float]:
    """Counters of all workers, summed."""
    sums: dict[str, float] = {}
    for _, port in workers:
        for name, value in metrics(port).items():
            sums[name] = sums.get(name, 0.0) + value
    return sums


def total(rounds: Sequence[Cost]) -> Cost:
    def summed(of: Callable[[Cost], Mapping[str, float]]) -> dict[str, float]:
        keys = {key for cost in rounds for key in of(cost)}
        return {key: sum(of(cost).get(key, 0.0) for cost in rounds) for key in sorted(keys)}

    kinds = {key: int(n) for key, n in summed(lambda cost: cost.kinds).items()}
    return Cost(
        sum(c.records for c in rounds),
        sum(c.seconds for c in rounds),
        sum(c.cpu_s for c in rounds),
        summed(lambda cost: cost.parts),
        kinds,
    )
