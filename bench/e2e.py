"""`slipstream bench e2e`: from an event's arrival in the raw topic until a ranker could read its user's state.

Three things, one after the other on the same path (bench/live.py): a steady rate; a ladder of rates, until freshness runs
away; and a burst of ten times the events, until all is as before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.live import LiveConfig, LivePath, Passage, Say, live_path
from bench.path import Lab
from bench.result import Result
from bench.sending import steadily
from schemas.bundle import PRESETS
from slipstream.demo.freshness import percentiles

_WARM_UP_S = 5.0
#: Of a step of the ladder: what the step before left in the caches and queues is nearly the same.
_STEP_WARM_UP_S = 2.0
#: What freshness at saturation is judged by: the target of 1,000 events/s.
FRESH_MS = 150.0
#: Freshness has run away.
_RUNAWAY_MS = 1500.0
_BURST_FACTOR = 10
_BURST_S = (20.0, 10.0, 30.0)  # before, in and after the burst
_BIN_S = 1.0


@dataclass(frozen=True)
class EndToEnd:
    """
    Attributes:
        rate: events per second; each is of another user, as far as there are users.
        ladder: more rates, ascending, `step_s` each; none: only the steady rate is measured, and no burst.
        burst_rate: events per second before and after the burst.
    """

    preset: str = "small"
    rate: float = 1000.0
    seconds: float = 60.0
    users: int = 4000
    partitions: int = 4
    ladder: tuple[float, ...] = (250, 500, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 12000)
    step_s: float = 10.0
    burst_rate: float = 250.0


def run(config: EndToEnd, lab: Lab, say: Say) -> Result:
    """States of all users are made first, with windows of any length, so that what is measured are appends and, once in 65
    events, a window anchored anew."""
    shape = PRESETS[config.preset]
    live = LiveConfig(config.preset, config.users, (shape.keep + 1, shape.context), config.partitions)
    with live_path(live, lab, say) as path:
        say(f"{config.rate:,.0f} events/s for {config.seconds:.0f} s")
        steady = path.send(steadily(config.rate, config.seconds + _WARM_UP_S))
        took_ms = _after(steady, _WARM_UP_S)
        details: dict[str, Any] = {
            "ms": percentiles(took_ms),
            "refreshes": len(took_ms),
            "kinds": steady.kinds,
            "cores": steady.cores,
            "histogram": np.histogram(took_ms, np.arange(0, 501, 5))[0].tolist(),  # by 5 ms
        }
        figures: dict[str, float | None] = {
            "event_to_state_ms_p50": details["ms"]["p50"],
            "event_to_state_ms_p99": details["ms"]["p99"],
            "events_per_s": steady.events / steady.seconds,
        }
        if config.ladder:
            details["load"] = list(_climb(config, path, say))
            details["burst"] = _burst(config, path, say)
            figures |= _load_figures(details["load"]) | _burst_figures(details["burst"])
    return Result("e2e", figures, asdict(config), details)


def _after(passage: Passage, warm_up_s: float) -> NDArray[np.float64]:
    """`(n,)`: milliseconds of what arrived after the warm-up."""
    return passage.took_ms[passage.arrived_ms >= passage.began_ms + 1000 * warm_up_s]


def _climb(config: EndToEnd, path: LivePath, say: Say) -> Iterator[dict[str, Any]]:
    """A step for each rate. It ends when freshness has run away at two in a row: once may be the machine's doing."""
    ran_away = 0
    for rate in config.ladder:
        say(f"{rate:,.0f} events/s for {config.step_s:.0f} s")
        passage = path.send(steadily(rate, config.step_s + _STEP_WARM_UP_S))
        ms = percentiles(_after(passage, _STEP_WARM_UP_S))
        yield {
            "rate": rate,
            "events_per_s": passage.events_per_s,
            "ms": ms,
            "refreshes_per_event": len(passage.took_ms) / passage.events,
            "cores": passage.cores,
        }
        ran_away = ran_away + 1 if ms["p99"] > _RUNAWAY_MS else 0
        if ran_away == 2:
            return


def _load_figures(steps: list[dict[str, Any]]) -> dict[str, float | None]:
    """The most that went through, and the highest rate up to which each step was fresh."""
    fresh = None
    for step in steps:
        if step["ms"]["p99"] > FRESH_MS:
            break
        fresh = step["rate"]
    return {
        "saturation_events_per_s": max(step["events_per_s"] for step in steps),
        f"events_per_s_within_{FRESH_MS:.0f}_ms": fresh,
    }


def _burst(config: EndToEnd, path: LivePath, say: Say) -> dict[str, Any]:
    """Freshness by the second of arrival: before, in and after ten times the events."""
    rates = (config.burst_rate, _BURST_FACTOR * config.burst_rate, config.burst_rate)
    say(f"{rates[0]:,.0f} events/s, {rates[1]:,.0f} for {_BURST_S[1]:.0f} s, {rates[2]:,.0f} again")
    starts_s = np.cumsum((0.0, *_BURST_S)).tolist()
    due_s = np.concatenate([at + steadily(rate, s) for at, rate, s in zip(starts_s, rates, _BURST_S, strict=False)])
    passage = path.send(due_s)
    arrived_s = (passage.arrived_ms - passage.began_ms) / 1000
    bins = np.arange(0, starts_s[-1] + _BIN_S / 2, _BIN_S)
    rows = []
    for start_s, end_s in pairwise(bins.tolist()):
        ms = passage.took_ms[(arrived_s >= start_s) & (arrived_s < end_s)]
        if len(ms):
            rows.append({"s": start_s, **percentiles(ms)})
    return {"rates": rates, "burst_s": starts_s[1:3], "seconds": rows, "events_per_s": passage.events_per_s}


def _burst_figures(burst: dict[str, Any]) -> dict[str, float | None]:
    """Freshness of the worst second, and how long after the burst's end events were as fresh as before it again.

    As fresh: half of a second's events within twice the median before.
    """
    began_s, ended_s = burst["burst_s"]
    before = [row["p50"] for row in burst["seconds"] if _WARM_UP_S <= row["s"] < began_s]
    normal_ms = 2 * float(np.median(before))
    after = [row for row in burst["seconds"] if row["s"] >= ended_s]
    late = [row["s"] + _BIN_S for row in after if row["p50"] > normal_ms]
    never = not after or after[-1]["p50"] > normal_ms
    return {
        "burst_ms_p99": max(row["p99"] for row in burst["seconds"] if began_s <= row["s"] < ended_s),
        "burst_back_to_normal_s": None if never else max(late, default=ended_s) - ended_s,
    }
