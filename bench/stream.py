"""`slipstream bench stream`: raw events to the compacted changelog, beside stock Faust and Quix Streams on the same broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.environments import contender_python
from bench.events import Spread, Workload
from bench.latency import raw_to_changelog
from bench.path import Cost, Lab, faust, ours, quix
from bench.recovery import Recovery, recoveries
from bench.result import Result
from schemas.sequence import DEFAULT_CAPACITY
from slipstream.demo.freshness import percentiles

Say = Callable[[str], None]

SPREADS: tuple[Spread, ...] = ("uniform", "zipf")
COMPRESSIONS = ("none", "snappy", "lz4", "zstd")


@dataclass(frozen=True)
class StreamBench:
    """
    Attributes:
        events, users: of a throughput run.
        faust_events: stock Faust is so much slower that it gets fewer.
        rate: events per second of the latency run, `latency_s` long.
        recovery_users, recovery_length: users of the recovery, and events of each.
        growth: how cost grows with sequence length, users and partitions, and what each compression costs. Most of the time.
        contenders: with stock Faust and Quix Streams.
    """

    events: int = 1_000_000
    users: int = 10_000
    faust_events: int = 30_000
    partitions: int = 4
    rate: float = 1000.0
    latency_s: float = 60.0
    recovery_users: int = 1_000_000
    recovery_length: int = 20
    growth: bool = True
    contenders: bool = True


def run(config: StreamBench, lab: Lab, environments: Path, say: Say) -> Result:
    """All of it, one part after the other: nothing else runs meanwhile."""
    details: dict[str, Any] = {"path": _path(config, lab, environments, say)}
    figures = _path_figures(details["path"])
    say(f"latency at {config.rate:.0f} events/s")
    latency = raw_to_changelog(lab, config.rate, config.latency_s, config.users, config.partitions)
    ms = percentiles(latency.ms)
    figures |= {"raw_to_changelog_ms_p50": ms["p50"], "raw_to_changelog_ms_p99": ms["p99"]}
    details["latency"] = {
        "rate": config.rate,
        "ms": ms,
        "cores": latency.cores,
        "histogram": np.histogram(latency.ms, np.arange(0, 201, 2))[0].tolist(),
    }
    details["recovery"] = _recovery(config, lab, say)
    memory = details["recovery"]["memory"][0]
    figures |= {
        "recovery_records_per_s": memory["records_per_s"],
        "ready_after_start_s_1m_users": memory["ready_after_start_s"],
        "bytes_per_user": memory["bytes_per_user"],
    }
    if config.growth:
        details["growth"] = _growth(config, lab, say)
        details["compression"] = _compression(config, lab, say)
    return Result("stream", figures, asdict(config), details)


def _path(config: StreamBench, lab: Lab, environments: Path, say: Say) -> dict[str, dict[str, Any]]:
    """Each contender on the same events, uniform and Zipf: spread -> contender -> cost."""
    found: dict[str, dict[str, Any]] = {}
    for spread in SPREADS:
        workload = Workload(config.events, config.users, spread)
        runs: dict[str, Callable[[], Cost]] = {"slipstream": partial(ours, lab, workload, config.partitions)}
        if config.contenders:
            python = contender_python("quix", "stream", environments, say)
            few = replace(workload, events=config.faust_events)
            runs["quix"] = partial(quix, lab, python, workload, config.partitions)
            runs["stock_faust"] = partial(faust, lab, few, config.partitions)
        found[spread] = {}
        for name, measure in runs.items():
            say(f"{name}: {spread} users")
            found[spread][name] = measure().as_details()
    return found


def _path_figures(path: dict[str, dict[str, Any]]) -> dict[str, float | None]:
    """The worse of both spreads."""

    def worst(ratio: Callable[[dict[str, Any]], float]) -> float:
        return min(ratio(costs) for costs in path.values())

    def against(name: str) -> float | None:
        if not all(name in costs for costs in path.values()):
            return None
        return worst(lambda costs: costs["slipstream"]["events_per_cpu_s"] / costs[name]["events_per_cpu_s"])

    return {
        "path_vs_quix": against("quix"),
        "path_vs_stock_faust": against("stock_faust"),
        "path_events_per_cpu_s": worst(lambda costs: costs["slipstream"]["events_per_cpu_s"]),
        "ingest_events_per_cpu_s": worst(
            lambda costs: costs["slipstream"]["events"] / costs["slipstream"]["cpu_s"]["ingest"]
        ),
        "changelog_bytes_per_event": max(costs["slipstream"]["changelog_bytes_per_event"] for costs in path.values()),
    }


def _recovery(config: StreamBench, lab: Lab, say: Say) -> dict[str, list[dict[str, Any]]]:
    def told(store: str, times: int) -> Iterator[dict[str, Any]]:
        say(f"recovery of {config.recovery_users} users, store {store}")
        for each in recoveries(lab, config.recovery_users, config.recovery_length, config.partitions, store, times):
            yield _recovery_details(each)

    found = {"memory": list(told("memory", 1))}
    if config.growth:
        found["rocksdb"] = list(told("rocksdb", 2))
    return found


def _recovery_details(recovery: Recovery) -> dict[str, Any]:
    return {**recovery._asdict(), "records_per_s": recovery.records_per_s}


def _growth(config: StreamBench, lab: Lab, say: Say) -> dict[str, list[dict[str, Any]]]:
    """One thing at a time: the others stay as in the main run, with fewer events."""
    events = max(1, config.events // 3)
    base = Workload(events, config.users)

    def cost(what: str, value: int, workload: Workload, partitions: int, length: int) -> dict[str, Any]:
        say(f"growth: {value} {what}")
        return {what: value, **ours(lab, workload, partitions, length).as_details()}

    n = config.partitions
    return {
        "length": [cost("length", length, base, n, length) for length in (16, 64, 128, DEFAULT_CAPACITY)],
        "users": [
            cost("users", users, replace(base, users=users, events=config.events), n, DEFAULT_CAPACITY)
            for users in (1_000, 10_000, 30_000, 100_000)
        ],
        "partitions": [cost("partitions", count, base, count, DEFAULT_CAPACITY) for count in (1, 4, 16)],
    }


def _compression(config: StreamBench, lab: Lab, say: Say) -> dict[str, dict[str, Any]]:
    """Of the changelog: with many users, so that a transaction writes each of them for few events."""
    workload = Workload(max(1, config.events // 3), 10 * config.users)
    found = {}
    for codec in COMPRESSIONS:
        say(f"compression {codec}")
        found[codec] = ours(lab, workload, config.partitions, sequence={"compression": codec}).as_details()
    return found
