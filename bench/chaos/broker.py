"""What can happen to the broker: it is killed, it stands still, its disk is full, it refuses what is produced.

"A full disk" is a limit on file sizes (RLIMIT_FSIZE), set on the running broker from outside: every write that would make a file
longer fails, as on a disk without space, and needs neither rights nor a file system of its own. Kafka's answer is the same: it
gives its only log directory up and halts. When there is room again it is started again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from edge.kafka import REQUEST_TIMEOUT_S, Admin, KafkaConfig
from slipstream.stack import Stack, start_part, stop_part
from slipstream.stack.process import find
from slipstream.stack.state import load

#: Below every batch of the stages, and above a transaction's marker (78 bytes): a limit that refuses markers too leaves a
#: transaction open until its coordinator is started again, and nobody can open the partition for writing (Kafka 4.1).
_REFUSING_BYTES = "100"
_GIVES_UP_WITHIN_S = 30.0
_SET_WITHIN_S = 60.0


class Broker:
    """The broker of a stack of our own. `goes` and `is_back` are called around each time without it; the latter perhaps twice."""

    def __init__(
        self,
        stack: Stack,
        kafka: KafkaConfig,
        goes: Callable[[], None],
        is_back: Callable[[], None],
        notify: Callable[[str], None],
    ) -> None:
        self._data_dir: Path = stack.data_dir
        self._kafka = kafka
        self._goes, self._is_back, self._notify = goes, is_back, notify
        #: (went, was back), monotonic.
        self.absences: list[tuple[float, float]] = []
        #: (stage, began, ended), monotonic.
        self.refusals: list[tuple[str, float, float]] = []

    @property
    def can_be_signalled(self) -> bool:
        """Whether it is a process of this machine, not a container."""
        return self._process() is not None

    async def kill(self, seconds: float) -> None:
        """kill -9, and start it again after so many seconds."""
        with self._absence():
            await asyncio.to_thread(stop_part, self._data_dir, "kafka", kill=True)
            await asyncio.sleep(seconds)
            await self._start()

    async def freeze(self, seconds: float) -> None:
        """SIGSTOP and SIGCONT: connections stay open, and nothing answers."""
        process = self._process()
        assert process is not None
        with self._absence():
            process.suspend()
            try:
                await asyncio.sleep(seconds)
            finally:
                process.resume()

    async def fill_disk(self, seconds: float) -> None:
        """No file can grow until the broker gives up, and for so many seconds more; then it is started again."""
        process = self._process()
        assert process is not None
        with self._absence():
            _, hard = process.rlimit(psutil.RLIMIT_FSIZE)
            process.rlimit(psutil.RLIMIT_FSIZE, (1, hard))
            deadline = time.monotonic() + _GIVES_UP_WITHIN_S
            while self._process() is not None and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
            if self._process() is not None:
                self._notify("the broker lives on with a full disk: kill -9")
                await asyncio.to_thread(stop_part, self._data_dir, "kafka", kill=True)
            await asyncio.sleep(seconds)
            await self._start()

    async def refuse(self, stage: str, topic: str, seconds: float) -> None:
        """The topic takes no message for a while: all are too large for it."""
        began_s = time.monotonic()
        former = await asyncio.to_thread(self._set_limit, topic, _REFUSING_BYTES)
        try:
            await asyncio.sleep(seconds)
        finally:
            await asyncio.to_thread(self._set_limit, topic, former)
            self.refusals.append((stage, began_s, time.monotonic()))

    async def _start(self) -> None:
        self._is_back()  # it may answer before we hear of it, and what grows then grows by catching up
        await asyncio.to_thread(start_part, self._data_dir, "kafka")

    def _process(self) -> psutil.Process | None:
        return broker_process(self._data_dir)

    @contextmanager
    def _absence(self) -> Iterator[None]:
        went_s = time.monotonic()
        self._goes()
        try:
            yield
        finally:
            self._is_back()
            self.absences.append((went_s, time.monotonic()))

    def _set_limit(self, topic: str, max_message_bytes: str) -> str:
        """Sets the topic's max.message.bytes; what it was."""
        admin, resource = Admin(self._kafka), ConfigResource(ResourceType.TOPIC, topic)
        deadline = time.monotonic() + _SET_WITHIN_S
        while True:
            try:
                known = admin.client.describe_configs([resource], request_timeout=REQUEST_TIMEOUT_S)[resource].result()
                former = str(known["max.message.bytes"].value)
                entry = ConfigEntry("max.message.bytes", max_message_bytes, incremental_operation=AlterConfigOpType.SET)
                change = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
                admin.client.incremental_alter_configs([change], request_timeout=REQUEST_TIMEOUT_S)[change].result()
                return former
            except KafkaException as error:
                if time.monotonic() > deadline:
                    raise admin.failed(error, f"topic {topic}, max.message.bytes") from None
                time.sleep(0.5)


def broker_process(data_dir: Path) -> psutil.Process | None:
    """Of the stack in this directory; None if it is in a container or does not run."""
    part = load(data_dir).kafka
    return find(part.process) if part is not None and part.process is not None else None
