from __future__ import annotations

import asyncio

import pytest

from stream import batch_queue
from stream.batch_queue import BatchQueue, Pending
from stream.dead_letters import Provenance
from stream.memory_budget import MemoryBudget


def pending(number: int, dropped: list[int], size: int = 1) -> Pending:
    place = Provenance("t", 0, number, 0)
    return Pending(place, None, bytes(size), [], lambda: None, lambda: dropped.append(number))


def numbers(taken: list[Pending]) -> list[int]:
    return [each.provenance.offset for each in taken]


def test_what_was_not_done_comes_first_again() -> None:
    async def run() -> None:
        queue = BatchQueue()
        for number in range(4):
            await queue.put(pending(number, []))
        taken = queue.take()
        assert not queue
        queue.put_back(taken[1:])
        await queue.put(pending(4, []))
        assert numbers(queue.take()) == [1, 2, 3, 4]

    asyncio.run(run())


@pytest.mark.parametrize(("size", "most"), [(1, batch_queue.MAX_QUEUED), (batch_queue.MAX_QUEUED_BYTES // 4, 4)])
def test_a_full_queue_makes_its_writer_wait(size: int, most: int) -> None:
    async def run() -> None:
        queue = BatchQueue()
        for number in range(most):
            await queue.put(pending(number, [], size))
        late = asyncio.create_task(queue.put(pending(most, [], size)))
        await asyncio.sleep(0)
        assert not late.done()
        assert numbers(queue.take()) == list(range(most))
        await late
        assert numbers(queue.take()) == [most]

    asyncio.run(run())


def test_discarding_gives_everything_back_also_what_waits_outside() -> None:
    async def run() -> None:
        dropped: list[int] = []
        queue = BatchQueue()
        for number in range(batch_queue.MAX_QUEUED):
            await queue.put(pending(number, dropped))
        late = asyncio.create_task(queue.put(pending(99, dropped)))
        await asyncio.sleep(0)
        queue.discard()
        await late
        assert dropped == [*range(batch_queue.MAX_QUEUED), 99]
        await queue.put(pending(100, dropped))
        assert dropped[-1] == 100
        queue.discarding = False
        await queue.put(pending(101, dropped))
        assert numbers(queue.take()) == [101]

    asyncio.run(run())


def test_a_budget_is_shared_and_nobody_waits_for_ever() -> None:
    async def run() -> None:
        budget = MemoryBudget(100)
        order: list[str] = []

        async def task(name: str, size: int) -> None:
            async with budget.held(size):
                order.append(f"{name} in")
                await asyncio.sleep(0)
                order.append(f"{name} out")

        await asyncio.gather(task("a", 60), task("b", 60), task("more than there is", 500))
        assert order == ["a in", "a out", "b in", "b out", "more than there is in", "more than there is out"]
        order.clear()
        await asyncio.gather(task("a", 50), task("b", 50))
        assert order[:2] == ["a in", "b in"]

        cancelled = asyncio.create_task(task("c", 100))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        await task("d", 100)
        assert order[-1] == "d out"

    asyncio.run(run())
