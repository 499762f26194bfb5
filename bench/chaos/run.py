"""One run: a broker of its own, workers, a flow of events, faults while they flow; then the oracle.

1 start     Kafka, topics, two workers of each stage; with states also a Redis and a model
2 flow      events at a steady rate, and the schedule's faults meanwhile; the flow ends after the last fault
3 catch up  until nothing waits any more
4 stop      every worker is asked to end, and must
5 judge     sequences, states, dead letters, exits, logs
"""

from __future__ import annotations

import asyncio
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from pathlib import Path

from rich.console import Console

from bench.chaos.broker import Broker
from bench.chaos.faults import Faults as FaultRunner
from bench.chaos.flow import Flow
from bench.chaos.judge import Verdict, judge
from bench.chaos.load import Load, loads
from bench.chaos.played import ChaosConfig, Played, Scene, StateParts
from bench.chaos.redis import RedisInTrouble
from bench.chaos.redis_faults import RedisFaults
from bench.chaos.report import Outcome, outcome
from bench.chaos.schedule import STAGES, STREAM, Fault, plan_faults
from bench.chaos.states import Damage, StatesVerdict, judge_states
from bench.chaos.view import View
from bench.chaos.workers import Fleet, environment_of_workers
from edge.kafka import Admin
from schemas.errors import UnavailableError
from schemas.names import Names
from slipstream.stack import running
from stream.lag import group_lag
from stream.topics import create_topics

START_TIMEOUT_S = 180.0
CATCH_UP_TIMEOUT_S = 240.0
#: An encoder that finds at the very end that Redis lost writes has work again.
SETTLED_S = 4.0

Beside = Callable[[Fleet], AbstractAsyncContextManager[object]]
"""What goes on beside the flow: entered when every worker has partitions, left when all events are sent."""


def run_chaos(config: ChaosConfig, work_dir: Path, console: Console) -> Outcome:
    """Run it. The workers' logs stay in a directory of the run's own below `work_dir`, and Kafka's data if something is wrong.

    Raises:
        SlipstreamError: it could not be run to its end: the broker does not come back, the sender cannot deliver.
    """
    with scene(config, "chaos", work_dir, console) as place:
        stages = STAGES if config.states else STREAM
        schedule = plan_faults(config.faults, config.flow_s, config.seed, stages)
        flowing = loads(config.events, config.events / config.flow_s, config.seed)
        played = asyncio.run(play(config, place, schedule, flowing))
        verdict, of_states = judged(place, played.flow.acknowledged)
    made = outcome(config, played, verdict, of_states, place.work_dir)
    if not made.problems:
        clean_up(place.work_dir)
    return made


@contextmanager
def scene(config: ChaosConfig, name: str, work_dir: Path, console: Console) -> Iterator[Scene]:
    """Kafka, topics, and with states Redis and a model. Always ones of its own: what is done to them, nobody else's broker and
    Redis should have to bear."""
    names = Names(f"{name}-{config.seed}-{uuid.uuid4().hex[:8]}")
    work_dir = work_dir.resolve() / names.prefix
    work_dir.mkdir(parents=True)
    with View(console, config.events) as view:
        view.say("starting Kafka")
        with (
            running(work_dir / "stack", notify=view.say) as stack,
            _state_parts(config, names, work_dir, view.say) as states,
        ):
            place = Scene(stack, states, names, work_dir, view)
            create_topics(place.kafka, names, config.partitions)
            yield place


def judged(place: Scene, acknowledged: int) -> tuple[Verdict, StatesVerdict | None]:
    """5 judge: what the oracle finds, given how many raw messages the broker must have."""
    place.view.say("the oracle rebuilds every sequence from the raw topic")
    verdict = judge(place.kafka, place.names, acknowledged)
    if (states := place.states) is None:
        return verdict, None
    place.view.say("and every state from its sequence")
    of_states = judge_states(place.kafka, place.names, states.bundle, states.redis, states.damage, place.view.say)
    return verdict, of_states


def clean_up(work_dir: Path) -> None:
    """Keep the logs alone."""
    for data in ("stack", "tables", "redis", "model"):
        shutil.rmtree(work_dir / data, ignore_errors=True)


@contextmanager
def _state_parts(
    config: ChaosConfig, names: Names, work_dir: Path, notify: Callable[[str], None]
) -> Iterator[StateParts | None]:
    if not config.states:
        yield None
        return
    from bench.models import random_bundle  # needs the extra `train`, which a run of the stream alone does without

    bundle = random_bundle(work_dir / "model", "nano")
    redis = RedisInTrouble(work_dir / "redis", notify)
    try:
        damage = Damage(redis, names, bundle, config.seed)
        yield StateParts(bundle, redis, damage, RedisFaults(redis, damage, notify))
    finally:
        redis.close()


async def play(
    config: ChaosConfig,
    place: Scene,
    schedule: list[Fault],
    flowing: Iterator[Load],
    beside: Beside = lambda fleet: nullcontext(),
) -> Played:
    """1 start to 4 stop."""
    states, kafka, names, view = place.states, place.kafka, place.names, place.view
    settings = {"kafka_bootstrap": kafka.bootstrap_servers, "prefix": names.prefix, "sequence_store": config.store}
    stages: tuple[str, ...] = STREAM
    if states:
        stages = STAGES
        settings |= {"redis_url": states.redis.url, "bundle": str(states.bundle.directory)}
    fleet = Fleet(environment_of_workers(settings, place.work_dir / "workers.toml"), place.work_dir / "logs", view.say)
    broker = Broker(place.stack, kafka, fleet.broker_goes, fleet.broker_is_back, view.say)
    flow = Flow(kafka, names, flowing, config.seed)
    on_redis = states.faults if states else None
    faults = FaultRunner(fleet, broker, kafka, names, config.partitions, on_redis, view.say)
    played = Played(schedule, flow, fleet, broker, faults.done, states)
    try:
        async with asyncio.TaskGroup() as group:
            # 1 start
            for i, stage in enumerate(stages * config.workers):
                fleet.add(stage, spared=config.spares and i < len(stages))
            background = [group.create_task(fleet.supervise()), group.create_task(_show(view, flow))]
            await _until(fleet.all_have_partitions, START_TIMEOUT_S, "every worker has partitions")
            # 2 flow
            view.say(f"{config.events:,} events in {config.flow_s:.0f} s, and {len(schedule)} faults meanwhile")
            async with beside(fleet):
                began_s = time.monotonic()
                sending = group.create_task(_wait_for(flow.start()))
                await faults.run(schedule)
                view.say("the last fault is over")
                await asyncio.sleep(config.flow_s - (time.monotonic() - began_s))
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


def groups(names: Names, states: StateParts | None) -> dict[str, tuple[str, str]]:
    """Each stage's consumer group, and the topic that it reads. Asked in this order nothing slips through between."""
    asked = {
        "ingest": (names.ingest_group, names.engagements),
        "sequence": (names.sequence_app, names.batches),
    }
    if states:
        asked["encode"] = names.encoder_group(states.bundle.model_id), names.sequences
    return asked


async def _catch_up(played: Played, admin: Admin, names: Names, view: View) -> None:
    """Returns when nothing waits any more, or has waited for too long."""
    deadline = time.monotonic() + CATCH_UP_TIMEOUT_S
    settled_s = SETTLED_S if played.states else 0.0
    asked = groups(names, played.states)
    lag = dict.fromkeys(asked, -1)
    waited_s = time.monotonic()  # the last time that something did
    while time.monotonic() < deadline:
        try:
            for stage, (group, topic) in asked.items():
                lag[stage] = await _lag(admin, group, topic)
        except UnavailableError:
            continue
        now_s = time.monotonic()
        if not played.fleet.all_run() or not played.fleet.all_have_partitions() or any(lag.values()):
            waited_s = now_s
        elif now_s - waited_s >= settled_s:
            played.catch_up_s = waited_s - played.flow.last_s
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
