"""A changelog written by hand and encoders in processes of their own, for tests of the encoder on real Kafka and Redis."""

from __future__ import annotations

import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from edge.kafka import Admin, KafkaConfig, topic_id
from encoder.oracle import Claim, Mismatch, check_states
from encoder.store_redis import RedisStateStore, connect
from schemas.errors import UnavailableError
from schemas.names import Names
from schemas.sequence import NO_RECORDS, Records, Sequence, encode_sequence
from schemas.state import Fence
from stream.group_offsets import committed_offsets
from stream.offsets import end_offsets
from tests.encoder.models import Model

TIMEOUT_S = 60.0


def wait_until(what: str, condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"after {timeout_s:.0f} s still not: {what}"
        time.sleep(0.05)


@dataclass
class Changelog:
    """The topic `sequences`, and what its newest records say.

    Attributes:
        newest: user -> records and fence of the newest good sequence written.
    """

    bootstrap: str
    names: Names
    partitions: int = 4
    newest: dict[bytes, tuple[Records, Fence]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Silent, since the stack goes before its clients.
        self._quiet: dict[str, str | int | float | bool] = {"bootstrap.servers": self.bootstrap, "log_level": 0}
        self.admin = AdminClient(self._quiet)
        self.create()
        self._producer = Producer({**self._quiet, "transactional.id": f"{self.names.prefix}-test", "linger.ms": 0})
        self._producer.init_transactions()

    def create(self) -> None:
        topic = NewTopic(self.names.sequences, num_partitions=self.partitions, config={"cleanup.policy": "compact"})
        self.admin.create_topics([topic])[self.names.sequences].result()
        wait_until("the topic is there", self._is_there)
        self.topic_id = topic_id(KafkaConfig(self.bootstrap), self.names.sequences)

    def _is_there(self) -> bool:
        described = self.admin.list_topics(self.names.sequences, timeout=5).topics[self.names.sequences]
        return described.error is None and len(described.partitions) == self.partitions

    def partition(self, user: bytes) -> int:
        return zlib.crc32(user) % self.partitions

    def write(self, sequences: Mapping[bytes, Records], arrived_ms: int | None = None) -> None:
        """One transaction. A user without records is written as the sequence stage does: an empty sequence."""
        values = {user: encode_sequence(Sequence(0, records)) for user, records in sequences.items()}
        offsets = self.write_raw(list(values.items()), arrived_ms)
        for (user, records), offset in zip(sequences.items(), offsets, strict=True):
            self.newest[user] = (records, Fence(self.topic_id, self.partition(user), offset))

    def write_raw(
        self, values: list[tuple[bytes, bytes | None]], arrived_ms: int | None = None, commit: bool = True
    ) -> list[int]:
        """Any values; returns their offsets."""
        offsets: list[int] = [-1] * len(values)
        self._producer.begin_transaction()
        for i, (user, value) in enumerate(values):

            def delivered(error: object, message: Message, i: int = i) -> None:
                assert error is None, error
                offsets[i] = message.offset() or 0

            self._producer.produce(
                self.names.sequences, value, user, self.partition(user), on_delivery=delivered,
                timestamp=arrived_ms or int(time.time() * 1000),
            )  # fmt: skip
        if commit:
            self._producer.commit_transaction()
        else:
            self._producer.flush()
            self._producer.abort_transaction()
        return offsets

    def lag(self, model: Model) -> int:
        """Of the encoders' group, from what it has committed to the end of the log, markers of transactions included."""
        topic, group = self.names.sequences, self.names.encoder_group(model.bundle.model_id)
        where = [(topic, p) for p in range(self.partitions)]
        try:
            ends = end_offsets(Admin(KafkaConfig(self.bootstrap)), where)
            committed = committed_offsets(KafkaConfig(self.bootstrap), group, where)
            return sum(ends[w] - committed.get(w, 0) for w in where)
        except UnavailableError:  # the broker is just coming back
            return sys.maxsize

    def wait_for(self, model: Model, timeout_s: float = TIMEOUT_S) -> None:
        wait_until("the encoders have caught up", lambda: self.lag(model) == 0, timeout_s)

    def mismatches(self, model: Model, redis_url: str) -> list[Mismatch]:
        """The oracle over every user that was ever written."""
        store = RedisStateStore(connect(redis_url), self.names, model.layout)
        users = list(self.newest)
        claims = [Claim(u, *_swap(self.newest[u], stored)) for u, stored in zip(users, store.load(users), strict=True)]
        return check_states(model.runtime, model.bundle.features, model.layout, claims)

    def delete(self) -> None:
        """Delete the topic, if it is there."""
        if self.topic_id:
            self.admin.delete_topics([self.names.sequences])[self.names.sequences].result()
        self.topic_id = b""


def _swap(newest: tuple[Records, Fence], stored: Any) -> tuple[Records, Any, Fence]:
    return newest[0], stored, newest[1]


NOBODY: Mapping[bytes, Records] = {}
EMPTY = NO_RECORDS

_ENTRY = """
import logging, sys
from pathlib import Path
from edge.kafka import KafkaConfig
from encoder.backfill import BackfillConfig
from encoder.config import EncodeConfig
from encoder.worker import run_encode
from schemas.errors import SlipstreamError
from schemas.names import Names

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
try:
    run_encode(EncodeConfig(**{options}))
except SlipstreamError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


class Encoder:
    """An encoder worker as a process."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self._log = process, log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_for_log(self, text: str) -> None:
        def said() -> bool:
            assert self.process.poll() is None or text in self.log, self.log
            return text in self.log

        wait_until(f"the encoder says {text!r}", said)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(30)


@contextmanager
def encoder(model: Model, changelog: Changelog, redis_url: str, log: Path, **options: object) -> Iterator[Encoder]:
    """`options` are EncodeConfig's. Whatever is left of it at the end is killed."""
    options = {
        "kafka": KafkaConfig(changelog.bootstrap),
        "redis_url": redis_url,
        "bundle": model.bundle.directory,
        "names": changelog.names,
        **options,
    }
    shown = "{" + ", ".join(f"{key!r}: {_shown(value)}" for key, value in options.items()) + "}"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _ENTRY.format(options=shown)], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield Encoder(process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _shown(value: object) -> str:
    return f"Path({str(value)!r})" if isinstance(value, Path) else repr(value)
