"""Looks at every process, at the lag of each stage and at Redis, every few seconds."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

import psutil
import redis

from bench.chaos.redis import RedisInTrouble
from bench.chaos.workers import Fleet
from bench.programs import metrics
from bench.soak.growth import Look
from edge.kafka import Admin
from schemas.errors import SlipstreamError
from stream.lag import group_lag

_MB = 1e6


class Lag(NamedTuple):
    """Messages that wait, at one moment; `by_stage` is empty while Kafka does not answer."""

    at_s: float
    by_stage: dict[str, int]


class Memory(NamedTuple):
    """Redis at one moment."""

    at_s: float
    used_mb: float
    keys: int


class Watch:
    """
    Attributes:
        looks: by process; a worker that is started again is another process.
        lags, memory: over time.
    """

    def __init__(
        self,
        fleet: Fleet,
        others: Mapping[str, psutil.Process],
        groups: Mapping[str, tuple[str, str]],
        admin: Admin,
        trouble: RedisInTrouble,
        ports: tuple[int, int],
        every_s: float,
    ) -> None:
        """
        Args:
            others: processes that are no workers.
            groups: stage -> its consumer group and the topic that it reads.
            ports: of Kafka and of Redis, as workers connect to them.
        """
        self._fleet, self._others, self._groups = fleet, others, groups
        self._admin, self._trouble, self._ports = admin, trouble, ports
        self._every_s = every_s
        self.looks: dict[str, list[Look]] = defaultdict(list)
        self.lags: list[Lag] = []
        self.memory: list[Memory] = []

    async def run(self) -> None:
        """Until cancelled. What does not answer holds up nothing else."""
        async with asyncio.TaskGroup() as group:
            for look in (self._look, self._ask_kafka, self._ask_redis, self._scrape):
                group.create_task(self._again_and_again(look))

    async def _again_and_again(self, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            began_s = time.monotonic()
            await look()
            await asyncio.sleep(max(0.1, self._every_s - (time.monotonic() - began_s)))

    async def _look(self) -> None:
        pids = {slot.worker: slot.process.pid for slot in self._fleet.slots if slot.process}
        pids |= {name: process.pid for name, process in self._others.items()}
        for name, look in (await asyncio.to_thread(self._look_at, pids)).items():
            self.looks[name].append(look)

    def _look_at(self, pids: Mapping[str, int]) -> dict[str, Look]:
        looks = {}
        for name, pid in pids.items():
            with suppress(psutil.Error):  # it has just ended
                looks[name] = _look_at(psutil.Process(pid), *self._ports)
        return looks

    async def _ask_kafka(self) -> None:
        at_s, lag = time.monotonic(), {}
        with suppress(SlipstreamError):
            for stage, (group, topic) in self._groups.items():
                lag[stage] = sum((await asyncio.to_thread(group_lag, self._admin, group, [topic])).values())
        self.lags.append(Lag(at_s, lag if len(lag) == len(self._groups) else {}))

    async def _ask_redis(self) -> None:
        at_s, server = time.monotonic(), self._trouble.server
        with suppress(redis.RedisError):
            used = (await asyncio.to_thread(server.info, "memory"))["used_memory"]
            keys = await asyncio.to_thread(server.client.dbsize)
            self.memory.append(Memory(at_s, used / _MB, int(keys)))

    async def _scrape(self) -> None:
        """As Prometheus does; what it says is not kept."""
        for slot in list(self._fleet.slots):
            if slot.metrics_port and slot.process:
                await asyncio.to_thread(metrics, slot.metrics_port)


def _look_at(process: psutil.Process, kafka_port: int, redis_port: int) -> Look:
    at_s = time.monotonic()
    with process.oneshot():
        remote = [c.raddr.port for c in process.net_connections("tcp") if c.raddr]
        return Look(
            at_s,
            process.memory_info().rss / _MB,
            process.num_fds(),
            process.num_threads(),
            remote.count(kafka_port),
            remote.count(redis_port),
        )
