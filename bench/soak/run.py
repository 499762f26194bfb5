"""A soak: a run of bench/chaos whose first workers are spared, with a load that does not grow, watched all the time."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from rich.console import Console

from bench.chaos.broker import broker_process
from bench.chaos.played import Scene
from bench.chaos.report import Outcome
from bench.chaos.run import clean_up, groups, judged, play, scene
from bench.chaos.workers import Fleet
from bench.programs import Program
from bench.soak.config import SoakConfig
from bench.soak.load import plan_soak, soak_loads
from bench.soak.probe import Prober
from bench.soak.ranker import Told
from bench.soak.report import RANKER, Seen, soak_outcome
from bench.soak.watch import Watch
from edge.kafka import Admin


def run_soak(config: SoakConfig, work_dir: Path, console: Console) -> Outcome:
    """Run it. Logs stay in a directory of the run's own below `work_dir`, and Kafka's data if something is wrong.

    Raises:
        SlipstreamError: it could not be run to its end.
    """
    chaos = config.chaos()
    with scene(chaos, "soak", work_dir, console) as place:
        beside = _Beside(config, place)
        played = asyncio.run(play(chaos, place, plan_soak(config), soak_loads(config), beside.flow))
        seen = beside.seen
        verdict, states = judged(place, played.flow.acknowledged + seen.prober.acknowledged)
    assert states is not None
    made = soak_outcome(config, played, seen, verdict, states, place.work_dir)
    if not made.problems:
        clean_up(place.work_dir)
    return made


class _Beside:
    """The ranker, the freshness probe and the watch.

    Attributes:
        seen: from `flow` on.
    """

    def __init__(self, config: SoakConfig, place: Scene) -> None:
        assert place.states is not None
        self._config, self._place, self._states = config, place, place.states
        self.seen: Seen

    @asynccontextmanager
    async def flow(self, fleet: Fleet) -> AsyncIterator[None]:
        config, place, states = self._config, self._place, self._states
        told = Told(states.redis.url, place.names.prefix, str(states.bundle.directory))
        command = [sys.executable, "-m", "bench.soak.ranker", msgspec.json.encode(told).decode()]
        prober = Prober(place.kafka, place.names, states.redis.url, states.bundle.layout, config.probe_every_s)
        with Program(RANKER, command, place.work_dir / "logs") as ranker:
            self.seen = Seen(self._watch(fleet, ranker), prober)
            watching = asyncio.create_task(self.seen.watch.run())
            prober.start()
            try:
                yield
            finally:
                watching.cancel()
                await asyncio.to_thread(prober.finish)
            with suppress(asyncio.CancelledError):
                await watching  # which tells if it could not watch
            ranker.check()
        self.seen.ranker = msgspec.json.decode(ranker.log.read_bytes().splitlines()[-1])

    def _watch(self, fleet: Fleet, ranker: Program) -> Watch:
        place, states = self._place, self._states
        others = {RANKER: ranker.process}
        if (broker := broker_process(place.stack.data_dir)) is not None:
            others["kafka"] = broker
        ports = int(place.stack.kafka_bootstrap.rsplit(":")[-1]), urlsplit(states.redis.url).port or 0
        return Watch(
            fleet,
            others,
            groups(place.names, states),
            Admin(place.kafka),
            states.redis,
            ports,
            self._config.sample_every_s,
        )
