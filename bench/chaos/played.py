"""What a run is told, and what it leaves behind for its judges."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bench.chaos.broker import Broker
from bench.chaos.faults import Done
from bench.chaos.flow import Flow
from bench.chaos.redis import RedisInTrouble
from bench.chaos.redis_faults import RedisFaults
from bench.chaos.schedule import Fault, Faults
from bench.chaos.states import Damage
from bench.chaos.view import View
from bench.chaos.workers import Fleet
from edge.kafka import KafkaConfig
from encoder.bundle import Bundle
from schemas.names import Names
from slipstream.stack import Stack


@dataclass(frozen=True)
class ChaosConfig:
    """
    Attributes:
        events: at least so many flow, duplicates, requests to forget and malformed messages not counted.
        flow_s: in so many seconds; longer if the faults need it.
        workers: of each stage.
        store: where a sequence worker's tables are, `memory` or `rocksdb`.
        states: with encoders and a Redis, to which everything happens too.
        spares: nothing is done to the first worker of each stage: it lives from the beginning to the end.
    """

    events: int = 1_000_000
    flow_s: float = 150.0
    seed: int = 1
    partitions: int = 4
    workers: int = 2
    faults: Faults = field(default_factory=Faults)
    store: str = "memory"
    states: bool = False
    spares: bool = False


@dataclass
class StateParts:
    """What a run with states has more than one without."""

    bundle: Bundle
    redis: RedisInTrouble
    damage: Damage
    faults: RedisFaults


@dataclass(frozen=True)
class Scene:
    """Where a run takes place."""

    stack: Stack
    states: StateParts | None
    names: Names
    work_dir: Path
    view: View

    @property
    def kafka(self) -> KafkaConfig:
        return KafkaConfig(self.stack.kafka_bootstrap)


@dataclass
class Played:
    schedule: list[Fault]
    flow: Flow
    fleet: Fleet
    broker: Broker
    done: Done
    states: StateParts | None
    flow_s: float = 0.0
    catch_up_s: float | None = None
    memory_mb: dict[str, dict[str, float]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
