"""`slipstream bench backfill`: an empty Redis is filled from the changelog; how fast, and what live users notice of it.

One encoder worker as people run it, four times on the same changelog:

- fill: nothing else happens;
- idle: live users have events at a steady rate, and nothing is to be filled: what freshness is at best;
- live first: the same while an empty Redis is filled;
- in order: the same, read in its order as any consumer would: live records wait behind the whole past.

Freshness is of changelog records, from their timestamp until the state is readable, as the worker itself logs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from bench.filling import BackfillBench, Filling
from bench.path import Lab
from bench.result import Result
from schemas.errors import ConfigError

Say = Callable[[str], None]


def run(config: BackfillBench, lab: Lab, say: Say) -> Result:
    """The four, one after the other.

    Raises:
        ConfigError: the filling was over before its figures were: there are too few users for this machine.
        MismatchError: a state is wrong.
    """
    filling = Filling(config, lab)
    say(f"{config.preset}: {config.users_to_fill:,} users into an empty Redis")
    with filling.worker() as worker:
        filling.wait_for(worker)
        users_per_s = filling.fill_rate()
        say(
            f"{users_per_s:,.0f} a second; {config.rate:,.0f} live events/s for {config.seconds:.0f} s, nothing to fill"
        )
        idle = filling.live(worker)
    say("the same while an empty Redis is filled")
    filling.empty()
    with filling.worker() as worker:
        live_first = filling.live(worker)
        if not worker.left():
            raise ConfigError("the filling was over too soon: give it more users (--users), or less time (--seconds)")
    say("the same in the changelog's order")
    filling.empty()
    with filling.worker(live_first=False) as worker:
        in_order = filling.live(worker)
        filling.check()
    filling.close()
    runs = {"idle": idle, "live first": live_first, "in order": in_order}
    p50, p99 = np.percentile(live_first.ms, [50, 99]).tolist()
    p50_idle, p99_idle = np.percentile(idle.ms, [50, 99]).tolist()
    p99_in_order = float(np.percentile(in_order.ms, 99))
    figures = {
        "backfill_users_per_s": users_per_s,
        "backfill_users_per_s_beside_live": live_first.filled,
        "live_ms_p50": p50,
        "live_ms_p99": p99,
        "live_ms_p50_idle": p50_idle,
        "live_ms_p99_idle": p99_idle,
        "live_ms_p99_in_order": p99_in_order,
        "live_first_vs_in_order_p99": p99 / p99_in_order,
    }
    return Result("backfill", figures, asdict(config), {name: live.as_details() for name, live in runs.items()})
