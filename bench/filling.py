"""One changelog with the past of many users, encoders on it, and live users beside, for `bench backfill`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.checking import require_right
from bench.encoders import Encoder
from bench.events import GAP_MS, continued, histories, random_records
from bench.models import random_bundle
from bench.path import Lab
from bench.programs import caught_up, wait_until
from bench.sending import send, steadily
from bench.topics import delete_topics, seed_changelog
from edge.kafka import Admin
from encoder.store_redis import connect
from schemas.sequence import Records, pack_sequence
from slipstream.demo.freshness import percentiles
from stream.group_offsets import commit_offsets
from stream.offsets import end_offsets
from stream.topics import create_topics

_WARM_UP_S = 5.0


@dataclass(frozen=True)
class BackfillBench:
    """
    Attributes:
        users: whose states are filled; None: by the preset, so many that it takes half a minute or more.
        length: events of each.
        live_users, rate: who is live, and how many events a second they have together.
        seconds: for so long, after 5 that do not count: live users have no states then either.
        checked: users whose states are compared with a fresh encoding at the end.
    """

    preset: str = "small"
    users: int | None = None
    length: int = 200
    live_users: int = 200
    rate: float = 100.0
    seconds: float = 20.0
    partitions: int = 4
    checked: int = 64

    @property
    def users_to_fill(self) -> int:
        return self.users or {"nano": 60_000, "small": 12_000, "medium": 1500, "paper": 200}[self.preset]


class _Line(msgspec.Struct, gc=False):
    arrived_ms: int
    written_ms: int
    partition: int
    offset: int


class Live(NamedTuple):
    """What live users had of it.

    Attributes:
        ms: `(n,)`: from a record's timestamp until the state is readable.
        filled: states a second that were filled meanwhile.
    """

    ms: NDArray[np.float64]
    filled: float

    def as_details(self) -> dict[str, Any]:
        return {
            "records": len(self.ms),
            "ms": percentiles(self.ms),
            "filled_users_per_s": round(self.filled, 1),
        }


class Filling:
    """One changelog, and the workers on it."""

    def __init__(self, config: BackfillBench, lab: Lab) -> None:
        self._config, self._lab = config, lab
        self._names, self._directory = lab.fresh("backfill")
        self._admin = Admin(lab.kafka)
        self._bundle = random_bundle(self._directory / "model", config.preset)
        self._group = self._names.encoder_group(self._bundle.model_id)
        self._refreshes, self._read_bytes = self._directory / "refreshes.jsonl", 0
        self._rng = np.random.default_rng(0)
        create_topics(lab.kafka, self._names, config.partitions)
        now_ms = int(time.time() * 1000)
        past = histories(config.users_to_fill, config.length, now_ms)
        self._histories: dict[bytes, Records] = {}

        def kept() -> Iterator[tuple[bytes, Records]]:
            for number, (user, records) in enumerate(past):
                if number < config.checked:
                    self._histories[user] = records
                yield user, records

        seed_changelog(lab.kafka, self._names, config.partitions, kept())
        first_ms = now_ms - config.length * GAP_MS
        self._live = {
            b"live-%06d" % i: random_records(config.length, first_ms, GAP_MS, self._rng)
            for i in range(config.live_users)
        }

    @contextmanager
    def worker(self, live_first: bool = True) -> Iterator[Encoder]:
        """An encoder that owns all partitions."""
        self._refreshes.write_bytes(b"")
        self._read_bytes = 0
        options = {"backfill": {"live_first": live_first}}
        worker = Encoder.start(self._lab, self._names, self._bundle, self._refreshes, options, self._directory)
        with worker.program as program:
            wait_until(
                "the encoder owns all partitions", lambda: worker.partitions() == self._config.partitions, [program]
            )
            yield worker

    def wait_for(self, worker: Encoder) -> None:
        """Until everything is in a state."""
        wait_until(
            "the encoder has caught up",
            lambda: caught_up(self._admin, self._group, self._names.sequences),
            [worker.program],
            1800,
        )

    def empty(self) -> None:
        """Redis has nothing, and the next worker begins at the beginning."""
        with connect(self._lab.stack.redis_url) as client:
            client.flushdb()
        where = [(self._names.sequences, partition) for partition in range(self._config.partitions)]
        commit_offsets(self._lab.kafka, self._group, dict.fromkeys(where, 0))

    def fill_rate(self) -> float:
        """States a second, from the first one to the last."""
        written_ms = [line.written_ms for line in self._new_lines()]
        return (len(written_ms) - 1) / ((max(written_ms) - min(written_ms)) / 1000)

    def live(self, worker: Encoder) -> Live:
        """Live users have their events; how fresh they were, when all of them are in states."""
        config, users = self._config, list(self._live)
        due_s = steadily(config.rate, config.seconds + _WARM_UP_S)
        keys = [users[i % len(users)] for i in range(len(due_s))]
        values = [self._next(user) for user in keys]
        ends = self._ends()
        sent = send(self._lab.kafka, self._names.sequences, keys, values, due_s, [worker.program])
        from_ms, until_ms = sent.began_ms + 1000 * _WARM_UP_S, sent.began_ms + 1000 * sent.seconds
        missing = {(p, end - 1) for p, end in self._ends().items() if end > ends[p]}
        lines: list[_Line] = []

        def all_there() -> bool:
            new = self._new_lines()
            lines.extend(new)
            missing.difference_update((line.partition, line.offset) for line in new)
            return not missing

        wait_until("live events are in states", all_there, [worker.program], 1800)
        ms = [
            line.written_ms - line.arrived_ms
            for line in lines
            if line.offset >= ends[line.partition] and line.arrived_ms >= from_ms
        ]
        filled = sum(line.offset < ends[line.partition] and from_ms <= line.written_ms < until_ms for line in lines)
        return Live(np.array(ms, np.float64), filled / (until_ms - from_ms) * 1000)

    def check(self) -> None:
        """Some states of both."""
        some = dict(list(self._live.items())[: self._config.checked])
        require_right(self._lab.stack.redis_url, self._names, self._bundle, {**self._histories, **some})

    def close(self) -> None:
        """Give back what was used."""
        with connect(self._lab.stack.redis_url) as client:
            client.flushdb()
        delete_topics(self._admin, [self._names.sequences])

    def _next(self, user: bytes) -> bytes:
        """A live user's sequence with an event more."""
        self._live[user] = continued(self._live[user], 1, self._rng)
        return pack_sequence(0, self._live[user].tobytes())

    def _ends(self) -> dict[int, int]:
        topic = self._names.sequences
        where = [(topic, partition) for partition in range(self._config.partitions)]
        return {partition: end for (_, partition), end in end_offsets(self._admin, where).items()}

    def _new_lines(self) -> list[_Line]:
        """Of the worker's refresh log, those that are whole and were not read before: the worker needs the processor too."""
        with self._refreshes.open("rb") as log:
            log.seek(self._read_bytes)
            new = log.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        return msgspec.json.Decoder(_Line).decode_lines(whole)
