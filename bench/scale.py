"""`slipstream bench scale`: what an event costs, by the number of users, of partitions and of workers, through the whole path.

Users have short sequences, so that a million of their states fit into this machine's memory beside Kafka; `slipstream bench
refresh` says what long ones cost. Each event is of the next user in turn: with more users than hot states have room for, every
refresh reads its state from Redis first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import psutil
from rich.table import Table

from bench.live import LiveConfig, Say, live_path
from bench.path import Lab
from bench.result import Result
from bench.sending import steadily
from encoder.store_redis import connect
from schemas.bundle import PRESETS
from schemas.state import StateLayout

#: Whose CPU time counts: the stages, and the Redis that they write to.
STAGES = ("ingest", "sequence", "encode", "redis")
#: Each user's events at the start, and most of them after a run on many users.
_LENGTHS = (4, 12)
_EVENTS = 16
_HOT_CACHE_BYTES = 256 << 20  # as by default
#: Of a user's state, what Redis allocates for key and value; and what the sequence worker, the broker and its page cache take.
_ALLOCATED, _BESIDE_BYTES = 1.3, 1500
#: Of the free memory, what may be filled.
_MEMORY_SHARE = 0.7


@dataclass(frozen=True)
class ScaleBench:
    """
    Attributes:
        users: ascending; one series. The others are at `base_users`.
        partitions, workers: of each topic and of each stage; the first series is at `base_partitions` and one worker.
        rate: events per second of the steady part, `seconds` long.
        backlog: events that become visible at once, each of another user; with fewer users it is left out.
    """

    preset: str = "nano"
    users: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    base_users: int = 10_000
    partitions: tuple[int, ...] = (1, 4, 16)
    base_partitions: int = 4
    workers: tuple[int, ...] = (1, 2)
    rate: float = 1000.0
    seconds: float = 12.0
    backlog: int = 10_000


class Setting(NamedTuple):
    users: int
    partitions: int
    workers: int


def settings(config: ScaleBench) -> list[Setting]:
    """What is measured, each once: three series that meet in one point."""
    series = (
        *(Setting(users, config.base_partitions, 1) for users in config.users),
        *(Setting(config.base_users, partitions, 1) for partitions in config.partitions),
        *(Setting(config.base_users, config.base_partitions, workers) for workers in config.workers),
    )
    return list(dict.fromkeys(series))


def run(config: ScaleBench, lab: Lab, say: Say) -> Result:
    """A point for each setting; `left_out` names those for which the memory does not suffice."""
    layout = StateLayout(PRESETS[config.preset], "")
    points: list[dict[str, Any]] = []
    left_out: list[dict[str, int]] = []
    for setting in settings(config):
        if not fits(setting.users, layout, psutil.virtual_memory().available):
            say(f"{setting.users:,} users: left out, this machine's memory does not hold their states")
            left_out.append(setting._asdict())
            continue
        say(f"{setting.users:,} users, {setting.partitions} partitions, {setting.workers} workers of each stage")
        points.append(_point(config, lab, setting, say))
    details = {"points": points, "left_out": left_out, "lengths": _LENGTHS}
    return Result("scale", figures(config, points), asdict(config), details)


def fits(users: int, layout: StateLayout, free_bytes: int) -> bool:
    """Whether so many users' states and sequences go into the memory."""
    return (
        users * (_ALLOCATED * layout.value_bytes(layout.capacity_for(_EVENTS)) + _BESIDE_BYTES)
        <= _MEMORY_SHARE * free_bytes
    )


def _point(config: ScaleBench, lab: Lab, setting: Setting, say: Say) -> dict[str, Any]:
    live = LiveConfig(config.preset, setting.users, _LENGTHS, setting.partitions, setting.workers, _HOT_CACHE_BYTES)
    empty_bytes = _redis_bytes(lab)
    with live_path(live, lab, say) as path:
        redis_bytes = _redis_bytes(lab) - empty_bytes
        steady = path.send(steadily(config.rate, config.seconds))
        backlog = path.backlog(config.backlog) if setting.users >= config.backlog else None
    p50, p99 = np.percentile(steady.took_ms, [50, 99]).tolist()
    return {
        **setting._asdict(),
        "redis_bytes_per_user": redis_bytes / setting.users,
        "cpu_us_per_event": {stage: 1e6 * steady.cpu_s[stage] / steady.events for stage in STAGES},
        "ms": {"p50": p50, "p99": p99},
        "kinds": steady.kinds,
        "backlog": backlog
        and {
            "events_per_s": backlog.events_per_s,
            "cpu_us_per_event": {stage: 1e6 * backlog.cpu_s[stage] / backlog.events for stage in STAGES},
        },
    }


def _redis_bytes(lab: Lab) -> int:
    with connect(lab.stack.redis_url) as client:
        return int(client.info("memory")["used_memory"])


def figures(config: ScaleBench, points: list[dict[str, Any]]) -> dict[str, float | None]:
    """What an event costs with the fewest and with the most users; what goes through with each number of workers."""
    by_users = list(series(points, "users", config))
    base = next(series(points, "workers", config))["backlog"]
    fewest, most = (sum(point["cpu_us_per_event"].values()) for point in (by_users[0], by_users[-1]))
    found: dict[str, float | None] = {
        "users": by_users[-1]["users"],
        "redis_bytes_per_user": by_users[-1]["redis_bytes_per_user"],
        "cpu_us_per_event_fewest_users": fewest,
        "cpu_us_per_event_most_users": most,
        "cost_growth": most / fewest,
        "redis_us_per_event": None if base is None else base["cpu_us_per_event"]["redis"],
    }
    for point in series(points, "workers", config):
        found[f"backlog_events_per_s_workers_{point['workers']}"] = (point["backlog"] or {}).get("events_per_s")
    return found


def series(points: list[dict[str, Any]], what: str, config: ScaleBench) -> Iterator[dict[str, Any]]:
    """The points that differ in this one thing alone: `users`, `partitions` or `workers`."""
    base = Setting(config.base_users, config.base_partitions, 1)._asdict()
    for point in sorted(points, key=lambda point: int(point[what])):
        if all(point[name] == value for name, value in base.items() if name != what):
            yield point


def as_table(points: list[dict[str, Any]]) -> Table:
    """Every point, for people."""
    table = Table(
        title="CPU µs an event, by stage, at a steady rate; freshness in ms",
        title_justify="left",
        box=None,
        padding=(0, 0, 0, 1),
    )
    for name in ("users", "parts", "workers", *STAGES, "all", "p50", "p99", "backlog/s"):
        table.add_column(name, justify="right")
    for point in points:
        cost = point["cpu_us_per_event"]
        backlog = point["backlog"]
        table.add_row(
            *(f"{point[name]:,}" for name in Setting._fields),
            *(f"{cost[stage]:.0f}" for stage in STAGES),
            f"{sum(cost.values()):.0f}",
            *(f"{point['ms'][name]:.0f}" for name in ("p50", "p99")),
            f"{backlog['events_per_s']:,.0f}" if backlog else "",
        )
    return table
