"""Does to Redis what the schedule says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from bench.chaos.redis import RedisInTrouble
from bench.chaos.schedule import Fault, Kind
from bench.chaos.states import Damage


class RedisFaults:
    """One at a time.

    Attributes:
        done: how often each kind.
    """

    def __init__(self, trouble: RedisInTrouble, damage: Damage, notify: Callable[[str], None]) -> None:
        self._trouble, self._damage, self._notify = trouble, damage, notify
        self._alone = asyncio.Lock()
        self.done: Counter[Kind] = Counter()

    async def run(self, fault: Fault) -> None:
        async with self._alone:
            self._notify(f"{fault.kind}, {fault.seconds:.1f} s")
            await self._do(fault.kind, fault.seconds)
            self.done[fault.kind] += 1

    async def _do(self, kind: Kind, seconds: float) -> None:
        trouble = self._trouble
        match kind:
            case Kind.REDIS_FLUSH:
                await trouble.flush()
                await asyncio.sleep(seconds)
            case Kind.REDIS_KILL:
                await trouble.kill(seconds)
            case Kind.REDIS_POWER:
                await trouble.cut_power(seconds)
            case Kind.REDIS_FAIL_OVER:
                await trouble.fail_over(seconds)
            case Kind.REDIS_FULL:
                await trouble.fill(seconds)
            case Kind.REDIS_EVICTS:
                await trouble.evict(seconds)
            case Kind.REDIS_SLOW:
                await trouble.slow_down(seconds)
            case Kind.REDIS_FREEZE:
                await trouble.freeze(seconds)
            case Kind.DAMAGE:
                await asyncio.to_thread(self._damage.do)
                self._notify(f"{len(self._damage.users)} states are damaged")
                await asyncio.sleep(seconds)
            case _:
                raise AssertionError(f"{kind} is not about Redis")
