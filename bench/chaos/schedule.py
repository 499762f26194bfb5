"""What is done to whom and when. Pure: the same seed gives the same schedule, so that a failure can be run again.

The schedule fixes times, stages and durations. What the machine makes of it, such as which transaction a kill cuts in two,
differs from run to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np

STREAM = ("ingest", "sequence")
STAGES = (*STREAM, "encode")
#: A worker that is silent for so long loses its partitions: the stages' default. A zombie sleeps longer.
SESSION_TIMEOUT_S = 6.0
#: An encoder that gets no answer for so long asks again (encoder.store_redis.connect).
REDIS_TIMEOUT_S = 5.0
#: The first fault comes so long after the first event, when every worker is at work; the last one in this part of the flow.
_FIRST_S = 3.0
_LAST_SHARE = 0.92


class Kind(StrEnum):
    """What `Fault.seconds` counts is said behind each."""

    KILL = "kill -9 of a worker"  # until it is started again
    PAUSE = "zombie"  # SIGSTOP until SIGCONT
    SCALE = "a worker more"  # until it is asked to end
    ZOMBIE = "directed zombie"  # that batches pile up before
    BROKER_KILL = "kill -9 of the broker"  # until it is started again
    BROKER_FREEZE = "frozen broker"  # SIGSTOP until SIGCONT
    FULL_DISK = "full disk of the broker"  # that it stays full after the broker has given up
    REFUSED = "refused produce"  # that the topic takes no message
    REDIS_FLUSH = "flushed Redis"  # that nothing else happens to it
    REDIS_KILL = "kill -9 of a Redis without persistence"  # until it is started again, empty
    REDIS_POWER = "power cut of a Redis with an append-only file"  # likewise, with what had reached the disk
    REDIS_FAIL_OVER = "fail-over of Redis"  # of the writes that the replica has not
    REDIS_FULL = "full Redis"  # that it refuses writes
    REDIS_EVICTS = "evicting Redis"  # that it drops states to make room
    REDIS_SLOW = "slow Redis"
    REDIS_FREEZE = "frozen Redis"  # SIGSTOP until SIGCONT
    DAMAGE = "damaged states"  # likewise


#: Those that happen one at a time: each has the broker, or a whole stage, for itself.
ALONE = (Kind.ZOMBIE, Kind.BROKER_KILL, Kind.BROKER_FREEZE, Kind.FULL_DISK, Kind.REFUSED)
#: One at a time too, and whatever happens to the broker and to workers meanwhile.
REDIS = (
    Kind.REDIS_FLUSH,
    Kind.REDIS_KILL,
    Kind.REDIS_POWER,
    Kind.REDIS_FAIL_OVER,
    Kind.REDIS_FULL,
    Kind.REDIS_EVICTS,
    Kind.REDIS_SLOW,
    Kind.REDIS_FREEZE,
    Kind.DAMAGE,
)


@dataclass(frozen=True)
class Faults:
    """How many of each.

    Attributes:
        kills: of workers, each started again at once or after a random wait.
        zombies: workers paused past their session at random, wherever they are.
        directed: a sequence worker stopped with batches in its buffers until another one has taken its partitions over and
            emptied them, then continued.
        scalings: a worker is added, and asked to end later.
        refusals: a topic of the stages takes no message for a while, the batches' and the sequences' in turn.
        redis: rounds of everything that can happen to Redis, each once, in any order.
    """

    kills: int = 20
    zombies: int = 3
    directed: int = 1
    scalings: int = 2
    broker_kills: int = 1
    broker_freezes: int = 1
    full_disks: int = 1
    refusals: int = 2
    redis: int = 0


@dataclass(frozen=True)
class Fault:
    """
    Attributes:
        at_s: after the first event.
        stage: of the worker; for `REFUSED` the one that writes the topic. Empty where the broker or Redis is meant.
        seconds: what it counts is said at the kind.
        pick: which of the workers that are there.
    """

    at_s: float
    kind: Kind
    stage: str
    seconds: float
    pick: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def plan_faults(faults: Faults, flow_s: float, seed: int, stages: Sequence[str] = STREAM) -> list[Fault]:
    """The schedule for a flow of `flow_s` seconds through these stages, by time."""
    rng = np.random.default_rng([seed, 1])
    last_s = max(flow_s * _LAST_SHARE, _FIRST_S)

    def anywhere() -> float:
        return float(rng.uniform(_FIRST_S, last_s))

    planned: list[Fault] = []

    def add(at_s: float, kind: Kind, stage: str, seconds: float) -> None:
        planned.append(Fault(round(at_s, 2), kind, stage, round(seconds, 2), int(rng.integers(1 << 16))))

    for stage in _in_turn(rng, faults.kills, stages):
        add(anywhere(), Kind.KILL, stage, seconds_of(Kind.KILL, rng))
    for stage in _in_turn(rng, faults.zombies, stages):
        add(anywhere(), Kind.PAUSE, stage, seconds_of(Kind.PAUSE, rng))
    for stage in _in_turn(rng, faults.scalings, stages):
        add(anywhere(), Kind.SCALE, stage, seconds_of(Kind.SCALE, rng))

    alone = (
        [Kind.ZOMBIE] * faults.directed
        + [Kind.BROKER_KILL] * faults.broker_kills
        + [Kind.BROKER_FREEZE] * faults.broker_freezes
        + [Kind.FULL_DISK] * faults.full_disks
        + [Kind.REFUSED] * faults.refusals
    )
    # A window for each, two for a directed zombie, in any order. If the machine is slow they queue.
    order = [alone[i] for i in rng.permutation(len(alone))]
    windows = sum(_windows(kind) for kind in order)
    at_s, refused = _FIRST_S, int(rng.integers(2))
    for kind in order:
        window_s = _windows(kind) * (last_s - _FIRST_S) / windows
        stage = ""
        if kind is Kind.REFUSED:
            stage = STREAM[refused % 2]
            refused += 1
        elif kind is Kind.ZOMBIE:
            stage = "sequence"
        add(at_s + rng.uniform(0, 0.3) * window_s, kind, stage, seconds_of(kind, rng))
        at_s += window_s

    on_redis = [REDIS[i] for _ in range(faults.redis) for i in rng.permutation(len(REDIS))]
    for i, kind in enumerate(on_redis):
        window_s = (last_s - _FIRST_S) / len(on_redis)
        add(_FIRST_S + (i + rng.uniform(0, 0.3)) * window_s, kind, "", seconds_of(kind, rng))
    return sorted(planned, key=lambda fault: fault.at_s)


def _in_turn(rng: np.random.Generator, n: int, stages: Sequence[str]) -> Sequence[str]:
    """Stages for n faults: as many of each, but for one."""
    first = int(rng.integers(len(stages)))
    return [stages[(first + i) % len(stages)] for i in range(n)]


def _windows(kind: Kind) -> int:
    return 2 if kind is Kind.ZOMBIE else 1


def seconds_of(kind: Kind, rng: np.random.Generator) -> float:
    """What `Fault.seconds` counts for this kind, drawn."""
    if kind is Kind.KILL and rng.random() < 0.5:
        return 0.0
    low, high = {
        Kind.KILL: (0.0, 1.2 * SESSION_TIMEOUT_S),
        Kind.PAUSE: (SESSION_TIMEOUT_S + 1, SESSION_TIMEOUT_S + 4),
        Kind.SCALE: (8.0, 16.0),
        Kind.ZOMBIE: (7.0, 8.0),
        Kind.BROKER_KILL: (3.0, 6.0),
        Kind.BROKER_FREEZE: (SESSION_TIMEOUT_S, SESSION_TIMEOUT_S + 4),
        Kind.FULL_DISK: (2.0, 5.0),
        Kind.REFUSED: (3.0, 6.0),
        Kind.REDIS_FLUSH: (1.0, 3.0),
        Kind.REDIS_KILL: (0.0, 4.0),
        Kind.REDIS_POWER: (0.0, 4.0),
        Kind.REDIS_FAIL_OVER: (1.0, 1.5),
        Kind.REDIS_FULL: (3.0, 6.0),
        Kind.REDIS_EVICTS: (3.0, 6.0),
        Kind.REDIS_SLOW: (4.0, 8.0),
        Kind.REDIS_FREEZE: (REDIS_TIMEOUT_S + 1, REDIS_TIMEOUT_S + 4),
        Kind.DAMAGE: (3.0, 5.0),
    }[kind]
    return float(rng.uniform(low, high))
