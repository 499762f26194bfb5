"""`slipstream bench refresh`: changelog records in, states readable in Redis: what a refresh costs, by what it takes.

Encoder workers as people run them, on a real changelog and a real Redis (bench/encoders.py); only the model's weights are random.
Users get their first sequences, which makes their first states; then, round by round, each user's next sequence becomes visible
at once. The last rounds are the mix of a real log (bench/log_mix.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bench.checking import require_right
from bench.encoders import Cost, Encoders, Row, Show, total
from bench.events import GAP_MS, continued, random_records, user_key
from bench.log_mix import LogMix, log_mix
from bench.models import random_bundle
from bench.path import Lab
from bench.result import Result
from bench.topics import delete_topics
from edge.kafka import Admin
from encoder.store_redis import connect
from schemas.bundle import PRESETS
from schemas.log import EventLog
from schemas.sequence import DEFAULT_CAPACITY, Records
from stream.topics import create_topics

Say = Callable[[str], None]

_FIRST_MS = 1_600_000_000_000
#: Encoding in full is shown every so many of the rows that it is compared with: enough of them, in less time.
_FULL_EVERY = 4


@dataclass(frozen=True)
class RefreshBench:
    """
    Attributes:
        presets: models to measure.
        users: by preset, as many as their states fit into Redis and into the patience of whoever waits for their first encoding.
            So many events of the log, too.
        workers: encoder processes.
        rounds: of the steady mix.
        checked: users whose states are compared with a fresh encoding at the end.
        log: name of the log that the real mix is of; None: it is left out.
    """

    presets: tuple[str, ...] = ("small", "medium")
    users: Mapping[str, int] | None = None
    workers: int = 2
    partitions: int = 4
    rounds: int = 3
    checked: int = 64
    log: str | None = None

    def users_of(self, preset: str) -> int:
        return (self.users or {}).get(preset, {"nano": 16_000, "small": 8000, "medium": 2000, "paper": 100}[preset])


def run(config: RefreshBench, log: EventLog | None, lab: Lab, say: Say) -> Result:
    """All presets, one after the other; `details` holds every round."""
    figures: dict[str, float | None] = {}
    details: dict[str, Any] = {}
    for preset in config.presets:
        mix = log_mix(log, config.users_of(preset), PRESETS[preset], np.random.default_rng(0)) if log else None
        rounds = _Preset(config, lab, preset, say).measure(mix)
        details[preset] = {name: cost.as_details() for name, cost in rounds.items()}
        figures |= preset_figures(preset, rounds)
        if preset == config.presets[0]:
            steady = rounds["steady"]
            figures |= {
                "users_per_s_hot": steady.users_per_s,
                "users_per_s_cold": rounds["steady, states from Redis"].users_per_s,
                "overhead_share": steady.overhead_share,
            }
    return Result("refresh", figures, asdict(config), details)


def preset_figures(preset: str, rounds: Mapping[str, Cost]) -> dict[str, float | None]:
    """What a model's refreshes cost, and how much more encoding in full does: of the steady mix, and of the log's."""
    steady, full = rounds["steady"].cpu_us_per_record, rounds["full"].cpu_us_per_record
    from_redis = rounds["steady, states from Redis"].cpu_us_per_record
    in_log, in_log_full = rounds.get("log"), rounds.get("log, full")
    return {
        f"refresh_vs_full_{preset}": full / steady,
        f"refresh_vs_full_log_{preset}": in_log_full.cpu_us_per_record / in_log.cpu_us_per_record
        if in_log and in_log_full
        else None,
        f"cpu_us_hot_{preset}": steady,
        f"cpu_us_cold_{preset}": from_redis,
        f"cpu_us_full_{preset}": full,
    }


class _Preset:
    """One model's rounds, on one changelog."""

    def __init__(self, config: RefreshBench, lab: Lab, preset: str, say: Say) -> None:
        self._config, self._lab, self._preset, self._say = config, lab, preset, say
        self._names, self._directory = lab.fresh(f"refresh-{preset}")
        self._bundle = random_bundle(self._directory / "model", preset)
        self._encoders = Encoders(lab, self._names, self._bundle, config.partitions, self._directory)
        self._rng = np.random.default_rng(0)
        # In a steady stream a window's length is anything from `keep` to `context`.
        shape, users = self._bundle.shape, config.users_of(preset)
        lengths = self._rng.integers(shape.keep + 1, shape.context + 1, users)
        self._histories: dict[bytes, Records] = {
            user_key(i): random_records(n, _FIRST_MS, GAP_MS, self._rng) for i, n in enumerate(lengths.tolist())
        }

    def measure(self, mix: LogMix | None) -> dict[str, Cost]:
        """Costs by round."""
        create_topics(self._lab.kafka, self._names, self._config.partitions)
        shape, users = self._bundle.shape, list(self._histories)
        mixed = {user for user, _ in mix.events} if mix else set()
        costs: dict[str, Cost] = {}
        room = 2 * (len(users) + len(mixed)) * self._bundle.layout.value_bytes(shape.context)
        with self._workers(hot_cache_bytes=room) as show:
            costs["cold users"] = self._show("cold users", show, self._histories.items())
            steady = [self._show("steady", show, self._more(users, 1)) for _ in range(self._config.rounds)]
            costs["steady"] = total(steady)
            costs["four events more"] = self._show("four events more", show, self._more(users, 4))
            costs["one late event"] = self._show("one late event", show, self._more(users, late_by=5))
            if mix:
                for what, rows in (("first states", mix.anchored), ("grown windows", mix.grown)):
                    if rows:
                        self._show(f"the log's users, {what}", show, rows)
                costs["log"] = self._show("the log", show, mix.events)
        with self._workers(hot_cache_bytes=0) as show:
            costs["steady, states from Redis"] = self._show("steady, states from Redis", show, self._more(users, 1))
        with self._workers(hot_cache_bytes=0, incremental=False) as show:
            costs["full"] = self._show("full", show, self._more(users[::_FULL_EVERY], 1))
            if mix:
                costs["log, full"] = self._show("the log, full", show, mix.events[::_FULL_EVERY])
        with self._workers(hot_cache_bytes=0) as show:
            self._histories = {u: random_records(shape.context - 1, _FIRST_MS, GAP_MS, self._rng) for u in users}
            self._show("other windows", show, self._histories.items())
            self._show("windows full", show, self._more(users, 1))
            costs["anchored anew"] = self._show("anchored anew", show, self._more(users, 1))
        self._check()
        with connect(self._lab.stack.redis_url) as client:
            client.flushdb()
        delete_topics(Admin(self._lab.kafka), [self._names.sequences])
        return costs

    def _workers(self, **options: object) -> AbstractContextManager[Show]:
        return self._encoders.started(self._config.workers, options)

    def _show(self, name: str, show: Show, rows: Iterable[Row]) -> Cost:
        shown = list(rows)
        self._say(f"{self._preset}: {name}, {len(shown):,} records")
        return show(shown)

    def _more(self, users: Sequence[bytes], more: int = 0, late_by: int = 0) -> list[Row]:
        """Each of these users has `more` events, or one in the past."""
        for user in users:
            self._histories[user] = _next(self._histories[user], more, late_by, self._rng)
        return [(user, self._histories[user]) for user in users]

    def _check(self) -> None:
        """A figure of a run that computed something else is worth nothing."""
        users = list(self._histories)
        picked = [users[i] for i in self._rng.permutation(len(users))[: self._config.checked].tolist()]
        histories = {user: self._histories[user] for user in picked}
        require_right(self._lab.stack.redis_url, self._names, self._bundle, histories)


def _next(history: Records, more: int, late_by: int, rng: np.random.Generator) -> Records:
    """The sequence after `more` events, or after one that happened before the last `late_by`."""
    if late_by:
        before = history[-late_by]["timestamp_ms"] - GAP_MS // 2
        late = random_records(1, int(before), 0, rng)
        history = np.concatenate([history[:-late_by], late, history[-late_by:]])
    if more:
        history = continued(history, more, rng)
    return history[-DEFAULT_CAPACITY:]
