"""One run: a broker of its own, workers, a flow of events, faults while they flow; then the oracle.

1 start     Kafka, topics, two workers of each stage
2 flow      events at a steady rate, and the schedule's faults meanwhile; the flow ends after the last fault
3 catch up  until nothing waits any more
4 stop      every worker is asked to end, and must
5 judge     sequences, dead letters, exits, logs
"""

from __future__ import annotations

import asyncio
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console

from bench.chaos.broker import Broker
from bench.chaos.faults import Done
from bench.chaos.faults import Faults as FaultRunner
from bench.chaos.judge import Verdict, judge, tracebacks, unexplained
from bench.chaos.load import Flow
from bench.chaos.schedule import STAGES, Fault, Faults, plan_faults
from bench.chaos.view import View
from bench.chaos.workers import Fleet, environment_of_workers
from bench.result import Result
from edge.kafka import Admin, KafkaConfig
from schemas.errors import FencedError, UnavailableError
from schemas.names import Names
from slipstream.stack import Stack, running
from stream.lag import group_lag
from stream.oracle import Mismatch
from stream.topics import create_topics

SHOWN_MISMATCHES = 10
START_TIMEOUT_S = 60.0
CATCH_UP_TIMEOUT_S = 240.0


@dataclass(frozen=True)
class ChaosConfig:
    """
    Attributes:
        events: at least so many flow, duplicates, requests to forget and malformed messages not counted.
        flow_s: in so many seconds; longer if the faults need it.
        workers: of each stage.
        store: where a sequence worker's tables are, `memory` or `rocksdb`.
    """

    events: int = 1_000_000
    flow_s: float = 150.0
    seed: int = 1
    partitions: int = 4
    workers: int = 2
    faults: Faults = field(default_factory=Faults)
    store: str = "memory"


@dataclass(frozen=True)
class Outcome:
    """A result, and what is wrong with it: nothing, if all is well."""

    result: Result
    problems: list[str]
    mismatches: list[Mismatch]
    work_dir: Path

    def describe(self) -> str:
        """For people: what is wrong, the first sequences that differ, and where the logs are."""
        lines = [f"chaos, seed {self.result.config['seed']}:", *(f"  {problem}" for problem in self.problems)]
        lines += [f"  user {m.user.decode()}: {m.what}" for m in self.mismatches[:SHOWN_MISMATCHES]]
        return "\n".join([*lines, f"  logs, and Kafka's data: {self.work_dir}"])


@dataclass
class _Played:
    """What a run left behind, for the judge."""

    schedule: list[Fault]
    flow: Flow
    fleet: Fleet
    broker: Broker
    done: Done
    flow_s: float = 0.0
    catch_up_s: float | None = None
    memory_mb: dict[str, dict[str, float]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def run_chaos(config: ChaosConfig, work_dir: Path, console: Console) -> Outcome:
    """Run it. The workers' logs stay in a directory of the run's own below `work_dir`, and Kafka's data if something is wrong.

    Raises:
        SlipstreamError: it could not be run to its end: the broker does not come back, the sender cannot deliver.
    """
    names = Names(f"chaos-{config.seed}-{uuid.uuid4().hex[:8]}")
    work_dir = work_dir.resolve() / names.prefix
    work_dir.mkdir(parents=True)
    with View(console, config.events) as view:
        view.say("starting Kafka")
        # Always one of its own: what is done to it, nobody else's broker should have to bear.
        with running(work_dir / "stack", notify=view.say) as stack:
            kafka = KafkaConfig(stack.kafka_bootstrap)
            create_topics(kafka, names, config.partitions)
            played = asyncio.run(_play(config, stack, kafka, names, work_dir, view))
            view.say("the oracle rebuilds every sequence from the raw topic")
            verdict = judge(kafka, names, played.flow.acknowledged)
    outcome = Outcome(_result(config, played, verdict), _problems(played, verdict), verdict.mismatches, work_dir)
    if not outcome.problems:
        for data in ("stack", "tables"):
            shutil.rmtree(work_dir / data, ignore_errors=True)
    return outcome


async def _play(
    config: ChaosConfig, stack: Stack, kafka: KafkaConfig, names: Names, work_dir: Path, view: View
) -> _Played:
    """1 start to 4 stop."""
    settings = {
        "kafka_bootstrap": stack.kafka_bootstrap,
        "prefix": names.prefix,
        "sequence_store": config.store,
    }
    fleet = Fleet(environment_of_workers(settings, work_dir / "workers.toml"), work_dir / "logs", view.say)
    broker = Broker(stack, kafka, fleet.broker_goes, fleet.broker_is_back, view.say)
    flow = Flow(kafka, names, config.events, config.events / config.flow_s, config.seed)
    faults = FaultRunner(fleet, broker, kafka, names, config.partitions, view.say)
    played = _Played(plan_faults(config.faults, config.flow_s, config.seed), flow, fleet, broker, faults.done)
    try:
        async with asyncio.TaskGroup() as group:
            # 1 start
            for stage in STAGES * config.workers:
                fleet.add(stage)
            background = [group.create_task(fleet.supervise()), group.create_task(_show(view, flow))]
            await _until(fleet.all_have_partitions, START_TIMEOUT_S, "every worker has partitions")
            # 2 flow
            view.say(f"{config.events:,} events in {config.flow_s:.0f} s, and {len(played.schedule)} faults meanwhile")
            began_s = time.monotonic()
            sending = group.create_task(_wait_for(flow.start()))
            await faults.run(played.schedule)
            view.say("the last fault is over")
            flow.finish()
            await sending
            played.flow_s = time.monotonic() - began_s
            # 3 catch up
            await _catch_up(played, Admin(kafka), names, view)
            # 4 stop
            played.memory_mb = fleet.memory_mb()
            await asyncio.gather(*[fleet.stop(slot) for slot in fleet.slots])
            for task in background:
                task.cancel()
    except BaseExceptionGroup as errors:
        raise _first(errors) from errors
    finally:
        flow.stop()
        fleet.end_all()
    return played


async def _catch_up(played: _Played, admin: Admin, names: Names, view: View) -> None:
    """Returns when nothing waits any more, or has waited for too long."""
    deadline = time.monotonic() + CATCH_UP_TIMEOUT_S
    lag = {"ingest": -1, "sequence": -1}
    while time.monotonic() < deadline:
        try:  # in this order: nothing slips through between
            lag["ingest"] = await _lag(admin, names.ingest_group, names.engagements)
            lag["sequence"] = await _lag(admin, names.sequence_app, names.batches)
        except UnavailableError:
            continue
        if played.fleet.all_run() and not any(lag.values()):
            played.catch_up_s = time.monotonic() - played.flow.last_s
            view.say(f"caught up after {played.catch_up_s:.1f} s")
            return
        await asyncio.sleep(0.1)
    played.problems.append(f"not caught up after {CATCH_UP_TIMEOUT_S:.0f} s: {lag} messages wait")


async def _wait_for(future: asyncio.Future[None]) -> None:
    await future


async def _lag(admin: Admin, group: str, topic: str) -> int:
    return sum((await asyncio.to_thread(group_lag, admin, group, [topic])).values())


async def _until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise UnavailableError(f"chaos: after {timeout_s:.0f} s still not: {what}")
        await asyncio.sleep(0.1)


async def _show(view: View, flow: Flow) -> None:
    while True:
        view.sent(flow.events)
        await asyncio.sleep(0.25)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _problems(played: _Played, verdict: Verdict) -> list[str]:
    fleet, broker = played.fleet, played.broker
    return [
        *verdict.problems,
        *played.problems,
        *played.done.problems,
        *unexplained(fleet.exits, broker.absences, broker.refusals),
        *tracebacks(fleet.logs()),
    ]


def _result(config: ChaosConfig, played: _Played, verdict: Verdict) -> Result:
    fleet, done = played.fleet, played.done
    figures: dict[str, float | int | None] = {
        "events": played.flow.events,
        "messages": verdict.messages,
        "kills": done.kills,
        "broker_kills": done.broker_kills,
        "broker_freezes": done.broker_freezes,
        "full_disks": done.full_disks,
        "refused_produces": done.refusals,
        "rebalances": fleet.rebalances(),
        "zombies": done.zombies + done.directed,
        "fenced": sum(end.code == FencedError.exit_code for end in fleet.exits),
        "sequences": verdict.sequences,
        "sequences_differing": len(verdict.mismatches),
        "events_lost": verdict.events_lost,
        "dead_letters": verdict.malformed,
        "flow_s": played.flow_s,
        "catch_up_s": played.catch_up_s,
        "peak_rss_mb": max(memory["peak"] for memory in played.memory_mb.values()),
        "rss_growth_broker_away_mb": max(fleet.growth_mb.values(), default=None),
    }
    details = {
        "schedule": [fault.as_json() for fault in played.schedule],
        "left_out": done.left_out,
        "exits": fleet.exit_codes(),
        "rss_mb": played.memory_mb,
        "rss_growth_broker_away_mb": {worker: round(mb, 1) for worker, mb in fleet.growth_mb.items()},
        "broker_away_s": [round(back - went, 1) for went, back in played.broker.absences],
        "directed_zombie_batches": done.batches_in_hand,
        "dead_letters_written": verdict.dead_letters,
    }
    return Result("chaos", figures, asdict(config), details)
