"""What a soak is told."""

from __future__ import annotations

from dataclasses import dataclass

from bench.chaos.played import ChaosConfig
from bench.chaos.schedule import STAGES, Kind

#: What is done, each with the stage that it is done to; one after the other, in rounds of random order.
FAULTS: tuple[tuple[Kind, str], ...] = (
    *((kind, stage) for kind in (Kind.KILL, Kind.PAUSE, Kind.SCALE) for stage in STAGES),
    (Kind.BROKER_FREEZE, ""),
    (Kind.REDIS_FLUSH, ""),
    (Kind.REDIS_KILL, ""),
    (Kind.REDIS_FREEZE, ""),
    (Kind.REDIS_SLOW, ""),
)
#: Of the run: tables and hot states fill up, and each user has been replaced once.
_WARM_UP_SHARE = 1 / 4


@dataclass(frozen=True)
class SoakConfig:
    """
    Attributes:
        rate: events per second, but for bursts.
        users: at any moment; others take their places.
        faults: kinds and stages to draw from.
        fault_every_s, sample_every_s: seconds from one to the next.
        probe_every_s: of the events that freshness is measured by.
    """

    minutes: float = 30.0
    rate: float = 200.0
    users: int = 300
    seed: int = 1
    partitions: int = 4
    workers: int = 2
    faults: tuple[tuple[Kind, str], ...] = FAULTS
    fault_every_s: float = 60.0
    sample_every_s: float = 5.0
    probe_every_s: float = 0.5

    @property
    def flow_s(self) -> float:
        return 60 * self.minutes

    @property
    def warm_up_s(self) -> float:
        return self.flow_s * _WARM_UP_SHARE

    def chaos(self) -> ChaosConfig:
        """The run underneath."""
        return ChaosConfig(
            round(self.rate * self.flow_s),
            self.flow_s,
            self.seed,
            self.partitions,
            self.workers,
            states=True,
            spares=True,
        )
