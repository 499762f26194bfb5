"""The events of a soak, and what is done to whom and when. Drawn by a seed; pure, but for the clock that timestamps go on from.

The number of users never changes, so that whatever grows leaks. But users do: one after the other is forgotten, and a new one
takes the place; within the warm-up everybody is replaced once. From then on there are always as many young and old ones, with as
many events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count

import numpy as np
from numpy.typing import NDArray

from bench.chaos.load import Load, make_load, now_ms
from bench.chaos.schedule import SESSION_TIMEOUT_S, Fault, Kind, seconds_of
from bench.soak.config import SoakConfig

_CHUNK_S = 5.0
#: One chunk in so many is a burst of so many times the events.
_BURST_EVERY, _BURST_FACTOR = 12, 4
#: Of the broker: a session that ends then may cost a sequence worker its life, as it should, and it is to live on.
_FROZEN_S = (0.3 * SESSION_TIMEOUT_S, 0.7 * SESSION_TIMEOUT_S)


def soak_loads(config: SoakConfig) -> Iterator[Load]:
    """Without end; what make_load mixes in, bursts, and users who leave at the end of each load."""
    names = [f"user-{i}" for i in range(config.users)]
    leave_per_load, left = config.users * min(1.0, _CHUNK_S / config.warm_up_s), 0.0
    for number in count():
        rate = config.rate * (_BURST_FACTOR if number % _BURST_EVERY == _BURST_EVERY - 1 else 1)
        load = make_load(max(1, int(rate * _CHUNK_S)), config.users, rate, now_ms(), (config.seed, number))
        leaving = np.arange(int(left), int(left + leave_per_load)) % config.users
        left += leave_per_load
        yield _leave(load, names, leaving)
        for i in leaving.tolist():
            names[i] = f"user-{i}-{number}"


def _leave(load: Load, names: Sequence[str], leaving: NDArray[np.int64]) -> Load:
    """Of users with these names, of whom the given ones ask in the end to forget everything."""
    last = len(load.log) - 1
    over_ms = int(load.log.records["timestamp_ms"].max())
    return replace(
        load,
        log=replace(load.log, users=list(names)),
        forget_at=np.append(load.forget_at, np.full(len(leaving), last)),
        forget_user=np.append(load.forget_user, leaving),
        forget_ms=np.append(load.forget_ms, np.full(len(leaving), over_ms)),
    )


def plan_soak(config: SoakConfig) -> list[Fault]:
    """The schedule, by time. The end of the run is calm."""
    rng = np.random.default_rng([config.seed, 4])
    every_s = min(config.fault_every_s, config.flow_s)
    planned: list[Fault] = []
    order: list[int] = []
    for i in range(max(1, int(config.flow_s / every_s) - 1)):
        order = order or rng.permutation(len(config.faults)).tolist()
        kind, stage = config.faults[order.pop()]
        at_s = (i + 0.5 + rng.uniform(0, 0.3)) * every_s
        seconds = float(rng.uniform(*_FROZEN_S)) if kind is Kind.BROKER_FREEZE else seconds_of(kind, rng)
        planned.append(Fault(round(at_s, 2), kind, stage, round(seconds, 2), int(rng.integers(1 << 16))))
    return planned
