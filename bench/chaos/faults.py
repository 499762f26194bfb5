"""Does to workers and broker what the schedule says, while events flow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bench.chaos.broker import Broker
from bench.chaos.redis_faults import RedisFaults
from bench.chaos.schedule import ALONE, REDIS, Fault, Kind
from bench.chaos.workers import Fleet, Slot, has_partitions
from edge.kafka import Admin, KafkaConfig
from schemas.errors import FencedError, UnavailableError
from schemas.names import Names
from stream.lag import group_lag
from stream.offsets import end_offsets

_TIMEOUT_S = 90.0
#: The directed zombie is stopped in the midst of its work if so many batches wait for it then: its buffers are full.
_BATCHES_IN_HAND = 100
_TRIES = 4
#: A zombie notices at its next transaction.
_FENCED_WITHIN_S = 60.0


@dataclass
class Done:
    """What was done.

    Attributes:
        kills, zombies, directed, scalings, broker_kills, broker_freezes, full_disks, refusals: how often.
        problems: what did not go as promised.
        batches_in_hand: that waited for each directed zombie when it was stopped.
        timeline: (what, began, ended), monotonic, of all of them and of what was done to Redis.
    """

    kills: int = 0
    zombies: int = 0
    directed: int = 0
    scalings: int = 0
    broker_kills: int = 0
    broker_freezes: int = 0
    full_disks: int = 0
    refusals: int = 0
    left_out: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    batches_in_hand: list[int] = field(default_factory=list)
    timeline: list[tuple[str, float, float]] = field(default_factory=list)


class Faults:
    """Runs a schedule; returns when its last fault is over."""

    def __init__(
        self,
        fleet: Fleet,
        broker: Broker,
        kafka: KafkaConfig,
        names: Names,
        partitions: int,
        redis: RedisFaults | None,
        notify: Callable[[str], None],
    ) -> None:
        self._fleet, self._broker, self._redis = fleet, broker, redis
        self._names, self._partitions = names, partitions
        self._admin = Admin(kafka)
        self._notify = notify
        self._alone = asyncio.Lock()
        self.done = Done()

    async def run(self, schedule: list[Fault]) -> None:
        began_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in schedule:
                group.create_task(self._at(fault, began_s))

    async def _at(self, fault: Fault, began_s: float) -> None:
        await asyncio.sleep(fault.at_s - (time.monotonic() - began_s))
        if fault.kind in (Kind.BROKER_FREEZE, Kind.FULL_DISK) and not self._broker.can_be_signalled:
            self.done.left_out.append(f"{fault.kind}: it runs in a container")
            return
        at_s = time.monotonic()
        await self._do(fault)
        what = f"{fault.kind}: {fault.stage}" if fault.stage else str(fault.kind)
        self.done.timeline.append((what, at_s, time.monotonic()))

    async def _do(self, fault: Fault) -> None:
        if fault.kind in REDIS:
            assert self._redis is not None, "the schedule is that of a run with states"
            await self._redis.run(fault)
        elif fault.kind in ALONE:
            async with self._alone:
                await self._alone_fault(fault)
        else:
            async with self._fleet.gates[fault.stage].passing():
                await self._worker_fault(fault)

    async def _worker_fault(self, fault: Fault) -> None:
        fleet, done = self._fleet, self.done
        if fault.kind is Kind.SCALE:
            extra = fleet.add(fault.stage)
            done.scalings += 1
            self._notify(f"{extra.worker} is added")
            await asyncio.sleep(fault.seconds)
            self._notify(f"{extra.worker} is asked to end")
            await fleet.stop(extra)
            return
        if (slot := await self._somebody(fault)) is None:
            done.problems.append(
                f"{fault.kind}, at {fault.at_s:.0f} s: no {fault.stage} worker had partitions for {_TIMEOUT_S:.0f} s"
            )
        elif fault.kind is Kind.KILL:
            done.kills += 1
            self._notify(f"kill -9 {slot.worker}, down for {fault.seconds:.1f} s")
            fleet.kill(slot, fault.seconds)
            await asyncio.sleep(fault.seconds)
        else:
            done.zombies += 1
            self._notify(f"{slot.worker} stands still for {fault.seconds:.1f} s")
            process = fleet.pause(slot)
            try:
                await asyncio.sleep(fault.seconds)
            finally:
                fleet.resume(slot, process)

    async def _alone_fault(self, fault: Fault) -> None:
        broker, done = self._broker, self.done
        match fault.kind:
            case Kind.ZOMBIE:
                async with self._fleet.gates[fault.stage].alone():
                    try:
                        await self._directed_zombie(fault.seconds)
                    except UnavailableError as error:
                        done.problems.append(f"directed zombie: {error}")
                    for slot in self._fleet.of(fault.stage)[:2]:
                        slot.wanted = True
                return
            case Kind.BROKER_KILL:
                self._notify(f"kill -9 of the broker, down for {fault.seconds:.1f} s and its start")
                done.broker_kills += 1
                await broker.kill(fault.seconds)
            case Kind.BROKER_FREEZE:
                self._notify(f"the broker stands still for {fault.seconds:.1f} s")
                done.broker_freezes += 1
                await broker.freeze(fault.seconds)
            case Kind.FULL_DISK:
                self._notify("the broker's disk is full")
                done.full_disks += 1
                await broker.fill_disk(fault.seconds)
            case Kind.REFUSED:
                topic = self._names.batches if fault.stage == "ingest" else self._names.sequences
                self._notify(f"{topic} takes no message for {fault.seconds:.1f} s")
                done.refusals += 1
                await broker.refuse(fault.stage, topic, fault.seconds)
        self._notify("the broker is well again")

    async def _somebody(self, fault: Fault) -> Slot | None:
        """Whom it hits, once there is somebody at work; None if there is nobody for too long."""
        deadline = time.monotonic() + _TIMEOUT_S
        while (slot := self._fleet.pick(fault.stage, fault.pick)) is None and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        return slot

    # The directed zombie
    async def _directed_zombie(self, backlog_s: float) -> None:
        """A sequence worker is stopped in the midst of its work; another one takes its partitions over and gets past all that it
        had in hand; then it goes on. Unfenced, it would write stale sequences over newer ones, and be the last to write."""
        fleet, done = self._fleet, self.done
        zombie, heir = fleet.of("sequence")[:2]
        for attempt in range(1, _TRIES + 1):
            await asyncio.gather(*[fleet.stop(slot) for slot in fleet.of("sequence")])
            await asyncio.sleep(backlog_s * attempt)
            fleet.start(zombie)
            await self._until("a sequence worker has partitions", lambda: self._owns(zombie), 0.02)
            written = await self._written()  # from here on only it writes, and no longer markers of its predecessors
            await self._until("a sequence worker is at work", lambda: self._has_written(written), 0.02)  # noqa: B023
            process = fleet.pause(zombie)
            taken_until = await self._ends(self._names.batches)
            in_hand = sum((await self._lag()).values())
            if in_hand >= _BATCHES_IN_HAND:
                break
            self._notify(f"{zombie.worker} has {in_hand} batches before it, too few: once more, with more of them")
            fleet.resume(zombie, process)
        else:
            done.problems.append("directed zombie: the sequence stage could not be stopped in the midst of its work")
            return
        self._notify(f"{zombie.worker} stands still with {in_hand} batches before it, until another one has done them")
        worker = zombie.worker
        try:
            fleet.start(heir)
            await self._until("the heir has done the zombie's batches", lambda: self._is_past(taken_until), 0.3)
        finally:
            fleet.resume(zombie, process)
        done.directed += 1
        done.batches_in_hand.append(in_hand)
        if not await fleet.ended(zombie, process, _FENCED_WITHIN_S):
            done.problems.append(f"directed zombie: {worker} was not fenced within {_FENCED_WITHIN_S:.0f} s")
        elif (code := process.returncode) != FencedError.exit_code:
            done.problems.append(f"directed zombie: {worker} ended with exit code {code}, not {FencedError.exit_code}")

    async def _written(self) -> int:
        return sum((await self._ends(self._names.sequences)).values())

    async def _owns(self, slot: Slot) -> bool:
        return has_partitions(slot.log)

    async def _has_written(self, before: int) -> bool:
        return await self._written() > before

    async def _is_past(self, taken_until: dict[tuple[str, int], int]) -> bool:
        ends = await self._ends(self._names.batches)
        lag = await self._lag()  # asked later, so what is committed is at least the ends before minus it
        return all(ends[where] - lag[where] >= until for where, until in taken_until.items())

    async def _ends(self, topic: str) -> dict[tuple[str, int], int]:
        where = [(topic, partition) for partition in range(self._partitions)]
        return await asyncio.to_thread(end_offsets, self._admin, where)

    async def _lag(self) -> dict[tuple[str, int], int]:
        return await asyncio.to_thread(group_lag, self._admin, self._names.sequence_app, [self._names.batches])

    async def _until(self, what: str, condition: Callable[[], Awaitable[bool]], every_s: float) -> None:
        deadline = time.monotonic() + _TIMEOUT_S
        while not await condition():
            if time.monotonic() > deadline:
                raise UnavailableError(f"after {_TIMEOUT_S:.0f} s still not: {what}")
            await asyncio.sleep(every_s)
