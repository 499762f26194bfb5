"""What a deployment of some size takes, on paper: arithmetic from what was measured. docs/scaling.md tells how to read it.

Each function is a line of that arithmetic; nothing here has run at such a size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from schemas.bundle import PRESETS
from schemas.capacity import STRING_BYTES, block_bytes
from schemas.errors import ConfigError
from schemas.sequence import HEADER_BYTES, RECORD_BYTES
from schemas.state import StateLayout
from slipstream.sizing_costs import Costs, EncodeCosts


class Machine(NamedTuple):
    cores: int
    memory_bytes: int
    network_bytes_per_s: float


_GIB = 1 << 30
#: What all are counted in. Of its network, what a service can count on.
MACHINE = Machine(32, 256 * _GIB, 1.5e9)
#: Of a core: the rest is for bursts, for rebalances, and for what was not measured.
BUSY = 0.6
KAFKA_REPLICAS = 3
#: Written by a broker, copies of other brokers' included, with room to catch up.
BROKER_BYTES_PER_S = 200e6
#: Of a process, so that its snapshot and its fail-over stay short.
REDIS_SHARD_BYTES = 24 * _GIB
_FEWEST_PARTITIONS = 16
#: Of a state: its key, the entry in Redis's table and the object's header.
_KEY_BYTES = 160
#: Of an append on the wire, besides its header and slot: the script's digest, the fence and Redis's protocol.
_APPEND_BYTES = 400
#: Raw JSON and a packed batch, of an event.
_RAW_BYTES, _BATCH_BYTES = 110, 56


@dataclass(frozen=True)
class Demand:
    """
    Attributes:
        users: that have a state.
        events_per_s: at the peak.
        events_per_user: on average, in a sequence and a window. Whoever makes events has more of them: what an event rewrites
            is taken to be full.
        hot_share: of refreshes whose state the encoder still has; the rest is read from Redis.
        reads_per_s: states that rankers read.
    """

    users: int
    events_per_s: float
    preset: str = "small"
    events_per_user: int = 100
    hot_share: float = 0.0
    reads_per_s: float = 0.0

    def __post_init__(self) -> None:
        if self.users < 1 or self.events_per_s <= 0 or self.events_per_user < 1 or self.reads_per_s < 0:
            raise ConfigError("users, events per second and events per user must be at least 1, reads not negative")
        if not 0 <= self.hot_share <= 1:
            raise ConfigError(f"the share of hot states is between 0 and 1, not {self.hot_share}")


class Sizing(NamedTuple):
    """Cores are busy to `BUSY` at most.

    Attributes:
        state_bytes: that a user of `events_per_user` takes in Redis, key included.
        redis_bytes: of one copy of all states; a replica of each shard doubles it.
        redis_shards: processes of one core, by their memory or by their CPU, whichever needs more.
        redis_bytes_per_s: to and from it.
        sequence_table_bytes: of all sequence workers, in memory.
        encoder_cores: without GPUs. `gpus` and `gpu_host_cores` stand instead of them; None where they were not measured.
        kafka_bytes_per_s, changelog_bytes: of three replicas.
        backfill_core_hours: to encode every user from nothing: a new model, an empty Redis.
    """

    demand: Demand
    state_bytes: int
    redis_bytes: int
    redis_shards: int
    redis_bytes_per_s: float
    ingest_cores: float
    sequence_cores: float
    sequence_table_bytes: float
    encoder_cores: float
    gpus: int | None
    gpu_host_cores: float | None
    partitions: int
    kafka_bytes_per_s: float
    changelog_bytes: float
    brokers: int
    backfill_core_hours: float

    @property
    def machines(self) -> dict[str, float]:
        """Of `MACHINE`, by what runs on them: whatever they run out of first."""
        stages_cores = self.ingest_cores + self.sequence_cores
        return {
            "Redis's memory": self.redis_bytes / MACHINE.memory_bytes,
            "Redis's network": self.redis_bytes_per_s / MACHINE.network_bytes_per_s,
            "Redis's cores": self.redis_shards / MACHINE.cores,
            "encoders' cores": self.encoder_cores / MACHINE.cores,
            "the changelog's bytes": float(self.brokers),
            "ingest and sequence stage": max(
                stages_cores / MACHINE.cores, self.sequence_table_bytes / MACHINE.memory_bytes
            ),
        }

    @property
    def breaks_first(self) -> str:
        """What takes most machines."""
        machines = self.machines
        return max(machines, key=machines.__getitem__)


def size(demand: Demand, costs: Costs) -> Sizing:
    """What the demand takes.

    Raises:
        ConfigError: nothing was measured of this preset.
    """
    encode = costs.encode.get(demand.preset)
    if encode is None:
        raise ConfigError(f"--preset {demand.preset!r}: measured are {', '.join(costs.encode)}")
    layout, rate, cold = StateLayout(PRESETS[demand.preset], ""), demand.events_per_s, 1 - demand.hot_share
    context = layout.shape.context
    window = min(demand.events_per_user, context)
    # Memory.
    value_bytes = layout.value_bytes(layout.capacity_for(window))
    state_bytes = block_bytes(value_bytes + STRING_BYTES) + _KEY_BYTES
    redis_bytes = demand.users * state_bytes
    # Redis's work: a write for each event, and bytes that are read. Who is active has a full window.
    read_bytes_per_s = (rate * cold + demand.reads_per_s) * layout.value_bytes(context)
    append_bytes = layout.header_bytes + layout.slot_bytes + _APPEND_BYTES
    redis_cores = rate * costs.redis_write_us / 1e6 + read_bytes_per_s / costs.redis_bytes_per_s
    # Encoders.
    refresh_us = demand.hot_share * encode.hot_us + cold * encode.cold_us
    host_us = refresh_us - (1 - encode.overhead_share) * encode.hot_us
    encoder_cores = rate * refresh_us / 1e6 / BUSY
    sequence_cores = rate * (costs.sequence_us + costs.rewrite_us) / 1e6 / BUSY
    # Kafka.
    rewritten_bytes = HEADER_BYTES + context * costs.changelog_bytes_per_record
    kept_bytes = HEADER_BYTES + window * costs.changelog_bytes_per_record
    kafka_bytes_per_s = KAFKA_REPLICAS * rate * (_RAW_BYTES + _BATCH_BYTES + rewritten_bytes)
    return Sizing(
        demand,
        state_bytes,
        redis_bytes,
        max(math.ceil(redis_bytes / REDIS_SHARD_BYTES), math.ceil(redis_cores / BUSY)),
        rate * append_bytes + read_bytes_per_s,
        rate * costs.ingest_us / 1e6 / BUSY,
        sequence_cores,
        demand.users * (costs.sequence_user_bytes + window * RECORD_BYTES),
        encoder_cores,
        _gpus(encode, rate, context - layout.shape.keep + 1),
        rate * host_us / 1e6 / BUSY if encode.gpu_append_per_s else None,
        _partitions(max(encoder_cores, sequence_cores)),
        kafka_bytes_per_s,
        KAFKA_REPLICAS * demand.users * kept_bytes,
        max(KAFKA_REPLICAS, math.ceil(kafka_bytes_per_s / BROKER_BYTES_PER_S)),
        demand.users * encode.full_us * window / context / 3.6e9,
    )


def _gpus(encode: EncodeCosts, events_per_s: float, anchored_every: int) -> int | None:
    if not encode.gpu_append_per_s:
        return None
    anchored = 1 / anchored_every
    seconds = (1 - anchored) / encode.gpu_append_per_s + anchored / encode.gpu_encode_per_s
    return math.ceil(events_per_s * seconds / BUSY)


def _partitions(workers: float) -> int:
    """A worker has one core and at least one partition: twice as many as workers, so that they share evenly; a power of two."""
    return max(_FEWEST_PARTITIONS, 1 << math.ceil(math.log2(2 * max(1.0, workers))))
