"""What can happen to Redis: it is flushed, killed, loses what it had not kept, is full, drops states, is slow, stands still.

Servers of the run's own, one at a time, behind a proxy, which plays the part of the name that a deployment's Redis has. Nothing
is simulated but two things: a power cut is kill -9, and its append-only file cut back to what it was a second before; and a
network to Redis that is slow is the proxy's doing.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bench.proxy import Proxy
from schemas.errors import UnavailableError
from slipstream.stack.choose import Machine, redis_server
from slipstream.stack.process import HOST, free_port

_ANSWERS_WITHIN_S = 20.0
#: What a disk with `appendfsync everysec` may lack.
_NOT_ON_DISK_S = 1.0
#: Of the memory that holds states, what an evicting Redis must give up.
_EVICTED_SHARE = 0.3
_DELAY_S = 0.1


class Server:
    """One redis-server. `client` is not behind the proxy, and not in the way of what happens."""

    def __init__(self, binary: Path, directory: Path) -> None:
        directory.mkdir(parents=True)
        self._binary, self._directory = binary, directory
        self.port = free_port()
        self.client = redis.Redis(HOST, self.port, socket_timeout=_ANSWERS_WITHIN_S, retry=Retry(NoBackoff(), 0))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, append_only: bool = False) -> None:
        """Returns when it answers. Without an append-only file it comes up empty."""
        options = {
            "port": self.port,
            "bind": HOST,
            "dir": self._directory,
            "save": "",
            "appendonly": "yes" if append_only else "no",
            "appendfsync": "everysec",
            "repl-diskless-sync": "yes",
            "repl-diskless-sync-delay": 0,
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        with (self._directory / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self._binary), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until("Redis answers", self._answers)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def info(self, section: str) -> dict[str, Any]:
        found: Any = self.client.info(section)
        return dict(found)

    def keep_on_disk(self) -> Path:
        """From here on every write is in the append-only file; the file that they go to."""
        self.client.config_set("appendonly", "yes")

        def is_written() -> bool:
            persistence = self.info("persistence")
            return not persistence["aof_rewrite_in_progress"] and not persistence["aof_rewrite_scheduled"]

        until("the append-only file holds everything", is_written)
        # Redis 7 has a directory of files; the one that grows is not the base.
        files = [file for file in self._directory.rglob("*.aof") if ".base." not in file.name]
        return max(files, key=lambda file: file.stat().st_mtime_ns)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:  # not yet, or it still reads its file
            return False


class RedisInTrouble:
    """
    Attributes:
        url: leads to the server that is in use.
        absences: (went, was back), monotonic, of each time that it did not answer or refused.
        evicted: keys that a full Redis dropped.
    """

    def __init__(self, directory: Path, notify: Callable[[str], None]) -> None:
        """Raises PrerequisiteError, UnavailableError: there is no Redis to start, or it does not come up."""
        self._directory, self._notify = directory, notify
        self._binary = redis_server(Machine.this(), "a chaos run kills and freezes processes").binary
        self._servers = 0
        self.server = self._another()
        self.server.start()
        self._proxy = Proxy(HOST, self.server.port)
        self.url = f"redis://{HOST}:{self._proxy.port}/0"
        self.absences: list[tuple[float, float]] = []
        self.evicted: set[bytes] = set()

    def close(self) -> None:
        self._proxy.close()
        self.server.kill()

    async def flush(self) -> None:
        await asyncio.to_thread(self.server.client.flushall)

    async def kill(self, seconds: float) -> None:
        """kill -9, and start it again after so many seconds: nothing was kept."""
        with self._absence():
            self.server.kill()
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self.server.start)

    async def cut_power(self, seconds: float) -> None:
        """Its last second had not reached the disk."""
        file = await asyncio.to_thread(self.server.keep_on_disk)
        size = file.stat().st_size
        await _written(lambda: file.stat().st_size > size, _NOT_ON_DISK_S)
        with self._absence():
            self.server.kill()
            lost = file.stat().st_size - size
            with file.open("r+b") as kept:
                kept.truncate(size)
            self._notify(f"{lost:,} bytes of Redis's append-only file are lost")
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self.server.start, append_only=True)
        self.server.client.config_set("appendonly", "no")

    async def fail_over(self, seconds: float) -> None:
        """A replica takes over that the writes of the last seconds did not reach."""
        former, replica = self.server, self._another()
        try:
            await asyncio.to_thread(replica.start)
            replica.client.replicaof(HOST, former.port)
            await asyncio.to_thread(
                until,
                "the replica has everything",
                lambda: replica.info("replication").get("master_link_status") == "up",
            )
        except BaseException:
            replica.kill()
            raise
        replica.client.replicaof("NO", "ONE")
        reached = former.info("replication")["master_repl_offset"]
        await _written(lambda: former.info("replication")["master_repl_offset"] > reached, seconds)
        with self._absence():
            self.server = replica
            self._proxy.server = (HOST, replica.port)
            self._proxy.cut()
            former.kill()

    async def fill(self, seconds: float) -> None:
        """It takes no write."""
        with self._absence():
            self.server.client.config_set("maxmemory", 1)
            await asyncio.sleep(seconds)
            self.server.client.config_set("maxmemory", 0)

    async def evict(self, seconds: float) -> None:
        """It has room for a part of the states, and drops those that were not asked for lately."""
        await asyncio.to_thread(self._evict, seconds)

    async def slow_down(self, seconds: float) -> None:
        self._proxy.delay_s = _DELAY_S
        try:
            await asyncio.sleep(seconds)
        finally:
            self._proxy.delay_s = 0.0

    async def freeze(self, seconds: float) -> None:
        """SIGSTOP and SIGCONT: what was asked meanwhile is done then, and nobody waits for the answer any more."""
        process = self.server.process
        assert process is not None
        with self._absence():
            process.send_signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(seconds)
            finally:
                process.send_signal(signal.SIGCONT)

    def _evict(self, seconds: float) -> None:
        server, client = self.server, self.server.client
        memory = server.info("memory")
        states_bytes = memory["used_memory"] - memory["used_memory_startup"]
        with client.pubsub(ignore_subscribe_messages=True) as events:  # type: ignore[no-untyped-call]
            client.config_set("notify-keyspace-events", "Ee")
            events.subscribe("__keyevent@0__:evicted")
            client.config_set("maxmemory-policy", "allkeys-lru")
            client.config_set("maxmemory", int(memory["used_memory"] - _EVICTED_SHARE * states_bytes))
            deadline = time.monotonic() + seconds
            while (left_s := deadline - time.monotonic()) > 0:
                self._note_evicted(events.get_message(timeout=left_s))
            client.config_set("maxmemory", 0)
            client.config_set("maxmemory-policy", "noeviction")
            while (message := events.get_message(timeout=0.5)) is not None:
                self._note_evicted(message)
        self._notify(f"Redis dropped {len(self.evicted):,} values to make room")

    def _note_evicted(self, message: dict[str, Any] | None) -> None:
        if message is not None:
            self.evicted.add(message["data"])

    def _another(self) -> Server:
        self._servers += 1
        return Server(self._binary, self._directory / f"redis-{self._servers}")

    @contextmanager
    def _absence(self) -> Iterator[None]:
        went_s = time.monotonic()
        try:
            yield
        finally:
            self.absences.append((went_s, time.monotonic()))


async def _written(has_been: Callable[[], bool], seconds: float) -> None:
    """Writes of so many seconds, the first of which may be long in coming: an encoder may be down, or its broker."""
    deadline = time.monotonic() + _ANSWERS_WITHIN_S
    while not has_been() and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    await asyncio.sleep(seconds)


def until(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _ANSWERS_WITHIN_S
    while not condition():
        if time.monotonic() > deadline:
            raise UnavailableError(f"chaos: after {_ANSWERS_WITHIN_S:.0f} s still not: {what}")
        time.sleep(0.05)
