"""What a soak came to: figures, series for the picture, and in words what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from bench.chaos.judge import Verdict
from bench.chaos.played import Played
from bench.chaos.report import Outcome, mismatches_of, problems_of
from bench.chaos.schedule import STAGES
from bench.chaos.states import StatesVerdict
from bench.result import Result
from bench.soak.config import SoakConfig
from bench.soak.growth import Growth, Look, judged, slope_per_h
from bench.soak.probe import Prober
from bench.soak.watch import Watch
from ranker.rows import Status
from slipstream.demo.freshness import percentiles

RANKER = "ranker"
OURS = (*STAGES, RANKER)
#: So long after a fault the stages may still catch up: a session that times out, a process that starts.
_DISTURBED_FOR_S = 30.0
_FRESHNESS_POINTS = 60


@dataclass
class Seen:
    """What went on beside the flow.

    Attributes:
        ranker: what it counted.
    """

    watch: Watch
    prober: Prober
    ranker: dict[str, int] = field(default_factory=dict)


def soak_outcome(
    config: SoakConfig, played: Played, seen: Seen, verdict: Verdict, states: StatesVerdict, work_dir: Any
) -> Outcome:
    grown = judged(seen.watch.looks, config.warm_up_s)
    result = Result(
        "soak",
        _figures(played, seen, grown, config, verdict, states),
        asdict(config),
        {
            "growth": {stage: _as_json(*of) for stage, of in grown.items()},
            "series": _series(played, seen, grown),
            "ranker": seen.ranker,
            "exits": played.fleet.exit_codes(),
            "peak_rss_mb": {stage: memory["peak"] for stage, memory in played.memory_mb.items()},
            "left_out": played.done.left_out,
            "states_remade": states.remade,
        },
    )
    problems = [*problems_of(played, verdict, states), *_of_readers(seen)]
    problems += [f"no process of {stage} lived long enough" for stage in OURS if stage not in grown]
    return Outcome(result, problems, mismatches_of(verdict, states), work_dir)


def _figures(
    played: Played,
    seen: Seen,
    grown: Mapping[str, tuple[str, Growth]],
    config: SoakConfig,
    verdict: Verdict,
    states: StatesVerdict,
) -> dict[str, float | int | None]:
    """Growth is that of whoever grew most, of workers and ranker; Kafka's JVM is not ours."""
    ours = {stage: grown[stage][1] for stage in OURS if stage in grown}
    everything = percentiles(np.array([probe.took_ms for probe in seen.prober.found]))
    calm = percentiles(np.array(undisturbed(seen, played.done.timeline)))
    redis = seen.watch.memory
    warm = [memory for memory in redis if memory.at_s >= redis[0].at_s + config.warm_up_s]
    of_redis = slope_per_h(np.array([m.at_s for m in warm]), np.array([m.used_mb for m in warm]))
    last_lags = [sum(lag.by_stage.values()) for lag in seen.watch.lags if lag.by_stage]
    last_lags = last_lags[-max(1, len(last_lags) // 6) :]
    return {
        "minutes": played.flow_s / 60,
        "events": played.flow.events + seen.prober.acknowledged,
        "faults": len(played.done.timeline),
        "rss_growth_mb_per_h": max((of.rss_mb_per_h.per_h for of in ours.values()), default=None),
        "fd_growth": max((of.fds for of in ours.values()), default=None),
        "thread_growth": max((of.threads for of in ours.values()), default=None),
        "connection_growth": max((of.connections for of in ours.values()), default=None),
        "redis_growth_mb_per_h": of_redis.per_h if of_redis else None,
        "sequences": verdict.sequences,
        "sequences_differing": len(verdict.mismatches),
        "events_lost": verdict.events_lost,
        "states": states.states,
        "states_differing": len(states.differing),
        "freshness_ms_p50": everything.get("p50"),
        "freshness_ms_p99": everything.get("p99"),
        "freshness_ms_p99_undisturbed": calm.get("p99"),
        "lag_end": int(np.median(last_lags)) if last_lags else None,
        "catch_up_s": played.catch_up_s,
        **{f"rss_mb_{stage}": of.rss_mb for stage, of in ours.items()},
    }


def undisturbed(seen: Seen, timeline: Sequence[tuple[str, float, float]]) -> list[float]:
    """Milliseconds of probes that were sent while nothing was done to anybody, nor just before."""
    return [
        probe.took_ms
        for probe in seen.prober.found
        if not any(began <= probe.sent_s <= over + _DISTURBED_FOR_S for _, began, over in timeline)
    ]


def _of_readers(seen: Seen) -> list[str]:
    problems = []
    if seen.prober.lost:
        problems.append(f"{seen.prober.lost} events of the freshness probe were not found in states")
    if invalid := seen.ranker.get(Status.INVALID, 0):
        problems.append(f"the ranker met {invalid} invalid states")
    if not seen.ranker.get("crossed"):
        problems.append("the ranker crossed nobody")
    return problems


def _as_json(process: str, of: Growth) -> dict[str, Any]:
    low, high = of.rss_mb_per_h.low, of.rss_mb_per_h.high
    return {
        "process": process,
        "judged_minutes": round(of.minutes, 1),
        "rss_mb": round(of.rss_mb, 1),
        "rss_mb_per_h": round(of.rss_mb_per_h.per_h, 2),
        "rss_mb_per_h_95": [round(low, 2), round(high, 2)],
        "fds": of.fds,
        "threads": of.threads,
        "connections": of.connections,
    }


def _series(played: Played, seen: Seen, grown: Mapping[str, tuple[str, Growth]]) -> dict[str, Any]:
    """Over seconds from the first look: of processes that are judged, of Redis, lag, freshness, and what was done when."""
    watch = seen.watch
    start_s = min(looks[0].at_s for looks in watch.looks.values())
    lags = [lag for lag in watch.lags if lag.by_stage]
    return {
        "processes": {stage: _of_process(watch.looks[process], start_s) for stage, (process, _) in grown.items()},
        "redis": {
            "s": [round(memory.at_s - start_s, 1) for memory in watch.memory],
            "used_mb": [round(memory.used_mb, 2) for memory in watch.memory],
            "keys": [memory.keys for memory in watch.memory],
        },
        "lag": {
            "s": [round(lag.at_s - start_s, 1) for lag in lags],
            "messages": {stage: [lag.by_stage[stage] for lag in lags] for stage in STAGES},
        },
        "freshness_ms": list(_freshness(seen, start_s, played.flow_s)),
        "faults": [
            {"what": what, "s": round(began - start_s, 1), "until_s": round(over - start_s, 1)}
            for what, began, over in played.done.timeline
        ],
    }


def _of_process(looks: Sequence[Look], start_s: float) -> dict[str, list[float]]:
    return {
        "s": [round(look.at_s - start_s, 1) for look in looks],
        "rss_mb": [round(look.rss_mb, 1) for look in looks],
        "fds": [look.fds for look in looks],
        "threads": [look.threads for look in looks],
        "kafka_connections": [look.kafka for look in looks],
        "redis_connections": [look.redis for look in looks],
    }


def _freshness(seen: Seen, start_s: float, flow_s: float) -> Any:
    sent_s = np.array([probe.sent_s - start_s for probe in seen.prober.found])
    took_ms = np.array([probe.took_ms for probe in seen.prober.found])
    span_s = flow_s / _FRESHNESS_POINTS
    for at_s in np.arange(0, flow_s, span_s).tolist():
        found = took_ms[(sent_s >= at_s) & (sent_s < at_s + span_s)]
        if len(found):
            of_span = percentiles(found)
            yield {"s": round(at_s, 1), "p50": round(of_span["p50"], 1), "p99": round(of_span["p99"], 1)}
