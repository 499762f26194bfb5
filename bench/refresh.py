"""`slipstream bench refresh`: changelog records in, states readable in Redis: what a refresh costs, by what it takes.

Encoder workers as people run them, on a real changelog and a real Redis; only the model's weights are random. Users get their
first sequences, which makes their first states; then, round by round, each user's next sequence becomes visible at once, by a
Kafka transaction's commit. CPU time is that of the workers from there to their last commit; Redis' and the broker's are nobody's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np

from bench.events import random_records, user_key
from bench.models import random_bundle
from bench.path import Lab
from bench.programs import Program, caught_up, metrics, wait_until
from bench.result import Result
from bench.topics import delete_topics, filled
from edge.kafka import Admin
from encoder.oracle import Claim, check_states
from encoder.runtime import Runtime, RuntimeConfig
from encoder.store_redis import RedisStateStore, connect
from schemas.errors import MismatchError
from schemas.sequence import DEFAULT_CAPACITY, Records, pack_sequence
from slipstream.stack.process import free_port
from stream.topics import create_topics

Say = Callable[[str], None]

_GAP_MS = 600_000
_PART = 'slipstream_encode_part_seconds_total{part="'
_KIND = 'slipstream_encode_refreshes_total{kind="'
#: Parts of a worker's time that are no work.
_IDLE = ("wait",)


@dataclass(frozen=True)
class RefreshBench:
    """
    Attributes:
        presets: models to measure.
        users: by preset, as many as their states fit into Redis and into the patience of whoever waits for their first encoding.
        workers: encoder processes.
        rounds: of the steady mix.
        checked: users whose states are compared with a fresh encoding at the end.
    """

    presets: tuple[str, ...] = ("small", "medium")
    users: Mapping[str, int] | None = None
    workers: int = 2
    partitions: int = 4
    rounds: int = 3
    checked: int = 64

    def users_of(self, preset: str) -> int:
        return (self.users or {}).get(preset, {"nano": 16_000, "small": 8000, "medium": 2000, "paper": 100}[preset])


class Cost(NamedTuple):
    """Of one round: `records` users refreshed.

    Attributes:
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
    def overhead_share(self) -> float:
        """Of a worker's busy time, what is not ONNX Runtime's."""
        return 1 - self.parts["run"] / sum(self.parts.values())

    def as_details(self) -> dict[str, Any]:
        return {
            "records": self.records,
            "users_per_s": round(self.users_per_s),
            "cpu_us_per_user": round(1e6 * self.cpu_s / self.records, 1),
            "share": {part: round(s / sum(self.parts.values()), 3) for part, s in sorted(self.parts.items())},
            "kinds": self.kinds,
        }


def run(config: RefreshBench, lab: Lab, say: Say) -> Result:
    """All presets, one after the other; `details` holds every round."""
    figures: dict[str, float | None] = {}
    details: dict[str, Any] = {}
    for preset in config.presets:
        rounds = _Preset(config, lab, preset, say).measure()
        details[preset] = {name: cost.as_details() for name, cost in rounds.items()}
        full, steady = rounds["full"], rounds["steady"]
        figures[f"refresh_vs_full_{preset}"] = (full.cpu_s / full.records) / (steady.cpu_s / steady.records)
        if preset == config.presets[0]:
            figures |= {
                "users_per_s_hot": steady.users_per_s,
                "users_per_s_cold": rounds["steady, states from Redis"].users_per_s,
                "overhead_share": steady.overhead_share,
            }
    return Result("refresh", figures, asdict(config), details)


class _Preset:
    """One model's rounds, on one changelog."""

    def __init__(self, config: RefreshBench, lab: Lab, preset: str, say: Say) -> None:
        self._config, self._lab, self._preset, self._say = config, lab, preset, say
        self._redis_url = lab.stack.redis_url
        self._names, self._directory = lab.fresh(f"refresh-{preset}")
        self._admin = Admin(lab.kafka)
        self._bundle = random_bundle(self._directory / "model", preset)
        self._refresh_log = self._directory / "refreshes.jsonl"
        self._users = [user_key(i) for i in range(config.users_of(preset))]
        self._rng = np.random.default_rng(0)
        # In a steady stream a window's length is anything from `keep` to `context`.
        shape = self._bundle.shape
        lengths = self._rng.integers(shape.keep + 1, shape.context + 1, len(self._users))
        self._histories = [random_records(int(n), 1_600_000_000_000, _GAP_MS, self._rng) for n in lengths]

    def measure(self) -> dict[str, Cost]:
        create_topics(self._lab.kafka, self._names, self._config.partitions)
        every, shape = range(len(self._users)), self._bundle.shape
        costs: dict[str, Cost] = {}
        hot = {"hot_cache_bytes": 2 * len(self._users) * self._bundle.layout.value_bytes(shape.context)}
        with self._workers(hot) as workers:
            costs["cold users"] = self._round("cold users", workers, every)
            steady = [self._round("steady", workers, every, 1) for _ in range(self._config.rounds)]
            costs["steady"] = _sum(steady)
            costs["four events more"] = self._round("four events more", workers, every, 4)
            costs["one late event"] = self._round("one late event", workers, every, late_by=5)
            self._histories = [random_records(shape.context - 1, 1_600_000_000_000, _GAP_MS, self._rng) for _ in every]
            self._round("other windows", workers, every)
            self._round("windows full", workers, every, 1)
            costs["anchored anew"] = self._round("anchored anew", workers, every, 1)
        with self._workers({"hot_cache_bytes": 0}) as workers:
            costs["steady, states from Redis"] = self._round("steady, states from Redis", workers, every, 1)
        some = range(0, len(self._users), 4)
        with self._workers({"hot_cache_bytes": 0, "incremental": False}) as workers:
            costs["full"] = self._round("full", workers, some, 1)
        self._check()
        with connect(self._redis_url) as client:
            client.flushdb()
        delete_topics(self._admin, [self._names.sequences])
        return costs

    @contextmanager
    def _workers(self, options: Mapping[str, object]) -> Iterator[list[tuple[Program, int]]]:
        """Encoder processes that have caught up, each with its metrics' port."""
        common = {
            "kafka": self._lab.kafka.bootstrap_servers,
            "prefix": self._names.prefix,
            "redis_url": self._redis_url,
            "bundle": str(self._bundle.directory),
            "refresh_log": str(self._refresh_log),
            **options,
        }
        with ExitStack() as stack:
            workers = []
            for _ in range(self._config.workers):
                port = free_port()
                program = Program.worker("encode", {**common, "metrics_port": port}, self._directory)
                workers.append((stack.enter_context(program), port))
            wait_until("the encoders own all partitions", lambda: self._shared(workers), [p for p, _ in workers])
            yield workers

    def _shared(self, workers: Sequence[tuple[Program, int]]) -> bool:
        """Each worker owns a part, and all is committed."""
        lag = 'slipstream_encode_lag_records{partition="'
        owned = [sum(name.startswith(lag) for name in metrics(port)) for _, port in workers]
        return all(owned) and sum(owned) == self._config.partitions

    def _round(
        self, name: str, workers: Sequence[tuple[Program, int]], users: Sequence[int], more: int = 0, late_by: int = 0
    ) -> Cost:
        """Let each of these users have `more` events, or one in the past, and wait until their states say so."""
        self._say(f"{self._preset}: {name}, {len(users):,} users")
        for user in users:
            self._histories[user] = _next(self._histories[user], more, late_by, self._rng)
        values = [pack_sequence(0, self._histories[user].tobytes()) for user in users]
        topic, group = self._names.sequences, self._names.encoder_group(self._bundle.model_id)
        before, logged = _taken(workers), self._refresh_log.stat().st_size
        with filled(self._lab.kafka, topic, [self._users[user] for user in users], values):
            cpu_s = sum(program.cpu_s() for program, _ in workers)
        started_ms = time.time() * 1000
        wait_until("all is refreshed", lambda: caught_up(self._admin, group, topic), [p for p, _ in workers], 600)
        cpu_s = sum(program.cpu_s() for program, _ in workers) - cpu_s
        with self._refresh_log.open("rb") as log:
            log.seek(logged)
            written_ms = max(msgspec.json.decode(line)["written_ms"] for line in log)
        time.sleep(1.1)  # the workers tell their parts once a second
        spent = {key: value - before.get(key, 0.0) for key, value in _taken(workers).items()}
        parts = {key.removeprefix(_PART)[:-2]: s for key, s in spent.items() if key.startswith(_PART)}
        kinds = {key.removeprefix(_KIND)[:-2]: int(n) for key, n in spent.items() if key.startswith(_KIND) and n}
        return Cost(
            len(users),
            (written_ms - started_ms) / 1000,
            cpu_s,
            {p: s for p, s in parts.items() if p not in _IDLE},
            kinds,
        )

    def _check(self) -> None:
        """A figure of a run that computed something else is worth nothing."""
        picked = self._rng.choice(len(self._users), min(self._config.checked, len(self._users)), replace=False).tolist()
        layout = self._bundle.layout
        stored = RedisStateStore(connect(self._redis_url), self._names, layout).load([self._users[i] for i in picked])
        claims = [Claim(self._users[i], self._histories[i], state) for i, state in zip(picked, stored, strict=True)]
        runtime = Runtime(self._bundle, RuntimeConfig(graphs=("encode", "append")))
        wrong = check_states(runtime, self._bundle.features, layout, claims)
        if wrong:
            raise MismatchError(f"{len(wrong)} of {len(claims)} states are wrong: {wrong[0].user!r}: {wrong[0].what}")


def _next(history: Records, more: int, late_by: int, rng: np.random.Generator) -> Records:
    """The sequence after `more` events, or after one that happened before the last `late_by`."""
    if late_by:
        before = history[-late_by]["timestamp_ms"] - _GAP_MS // 2
        late = random_records(1, int(before), 0, rng)
        history = np.concatenate([history[:-late_by], late, history[-late_by:]])
    if more:
        new = random_records(more, int(history[-1]["timestamp_ms"]) + _GAP_MS, _GAP_MS, rng)
        history = np.concatenate([history, new])
    return history[-DEFAULT_CAPACITY:]


def _taken(workers: Sequence[tuple[Program, int]]) -> dict[str, float]:
    """Counters of all workers, summed."""
    sums: dict[str, float] = {}
    for _, port in workers:
        for name, value in metrics(port).items():
            sums[name] = sums.get(name, 0.0) + value
    return sums


def _sum(rounds: Sequence[Cost]) -> Cost:
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
