"""Writes one partition of the changelog, in transactions that only the partition's owner can commit.

The transactional id belongs to the partition: opening a writer (InitProducerId) aborts what the former owner had under way and
shuts it out. Unfenced, a worker stopped for longer than its session and then continued overwrote half of its users with
stale sequences.

There are two of them, which take turns. The broker acknowledges a commit before it has written the transaction's markers, and
until then refuses the same producer's next transaction: aiokafka tries again 20 ms later. With two: 276 transactions a second on
a partition instead of 113.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import confluent_kafka
from aiokafka import AIOKafkaProducer, errors  # type: ignore[import-untyped]
from aiokafka.errors import (  # type: ignore[import-untyped]
    BrokerResponseError,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    InvalidTxnState,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    RecordListTooLargeError,
    UnknownError,
)

from edge.kafka import RAISE_LIMIT, KafkaConfig, mapped
from schemas.errors import ConfigError, FencedError, SlipstreamError, TopicError, UnavailableError
from stream.dead_letters import Headers

#: Of a Kafka batch, uncompressed; the topic's max.message.bytes is larger.
_MAX_BATCH_BYTES = 1 << 20
#: Kafka batches that are on their way at once: bounds memory.
_MAX_UNACKNOWLEDGED = 8
_FENCED = (ProducerFenced, InvalidProducerEpoch, InvalidTxnState, InvalidProducerIdMapping, OutOfOrderSequenceNumber)
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
#: Of a record: names and values, as aiokafka takes them.
RecordHeaders = list[tuple[str, bytes]]
_NONE: RecordHeaders = []
NO_HEADERS: Mapping[bytes, RecordHeaders] = {}


class Write(NamedTuple):
    """A changelog record. `timestamp_ms` is the arrival of the oldest raw event newly in it; a value of None is a tombstone."""

    key: bytes
    value: bytes | None
    timestamp_ms: int


class Letter(NamedTuple):
    """A dead letter."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int


class Written(NamedTuple):
    """A committed transaction: bytes of its values, and the offset after its last record, None if the broker did not say."""

    size_bytes: int
    next_offset: int | None


class ChangelogWriter:
    """The one writer of a partition. Not for concurrent calls."""

    def __init__(self, producers: list[AIOKafkaProducer], topic: str, partition: int, timeout_s: float) -> None:
        self._producers = producers
        self._topic = topic
        self._partition = partition
        self._timeout_s = timeout_s

    @classmethod
    async def open(
        cls,
        kafka: KafkaConfig,
        topic: str,
        partition: int,
        transactional_ids: Sequence[str],
        timeout_s: float,
        compression: str = "zstd",
    ) -> ChangelogWriter:
        """Returns when every former writer of the partition is shut out.

        Args:
            timeout_s: how long opening, or one transaction, may take.

        Raises:
            UnavailableError: it took longer.
        """
        producers = [
            _producer(kafka, transactional_id, timeout_s, compression) for transactional_id in transactional_ids
        ]
        writer = cls(producers, topic, partition, timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*[producer.start() for producer in producers])  # InitProducerId is answered
        except (TimeoutError, KafkaError) as error:
            raise writer._mapped(error, "cannot be opened for writing") from None
        return writer

    async def write(
        self,
        writes: Iterable[Write],
        letters: Iterable[Letter] = (),
        dead_letters_topic: str = "",
        headers: Mapping[bytes, RecordHeaders] = NO_HEADERS,
    ) -> Written:
        """Write records, and dead letters, in one transaction; returns when it is committed.

        Args:
            headers: of records, by key.

        Raises:
            FencedError: another worker owns the partition.
            TopicError: the topic's max.message.bytes is too small.
            UnavailableError: not committed in time. Whether it will be is not known: this worker must not go on.
        """
        producer = self._producers[0]
        self._producers.reverse()
        try:
            async with asyncio.timeout(self._timeout_s):
                await producer.begin_transaction()
                written = await self._send(producer, writes, headers)
                for letter in letters:
                    await producer.send_and_wait(
                        dead_letters_topic,
                        letter.value,
                        letter.key,
                        timestamp_ms=letter.timestamp_ms,
                        headers=[(name, v.encode() if isinstance(v, str) else v) for name, v in letter.headers],
                    )
                await producer.commit_transaction()
                return written
        except (TimeoutError, KafkaError) as error:
            raise self._mapped(error, "not written") from error

    async def _send(
        self, producer: AIOKafkaProducer, writes: Iterable[Write], headers: Mapping[bytes, RecordHeaders]
    ) -> Written:
        size = 0
        next_offset: int | None = None
        sent: deque[tuple[asyncio.Future[Any], int]] = deque()

        async def acknowledged() -> int | None:
            future, records = sent.popleft()
            offset = (await future).offset
            return offset + records if offset >= 0 else None

        batch = producer.create_batch()
        for key, value, timestamp_ms in writes:
            of = headers.get(key, _NONE) if headers else _NONE
            if batch.append(key=key, value=value, timestamp=timestamp_ms, headers=of) is None:  # full
                future = await producer.send_batch(batch, self._topic, partition=self._partition)
                sent.append((future, batch.record_count()))
                batch = producer.create_batch()
                batch.append(key=key, value=value, timestamp=timestamp_ms, headers=of)
                if len(sent) >= _MAX_UNACKNOWLEDGED:
                    await acknowledged()
            size += len(value or b"")
        if batch.record_count():
            future = await producer.send_batch(batch, self._topic, partition=self._partition)
            sent.append((future, batch.record_count()))
        while sent:
            next_offset = await acknowledged()
        return Written(size, next_offset)

    async def close(self) -> None:
        await asyncio.gather(*[producer.stop() for producer in self._producers])

    def _mapped(self, error: Exception, what: str) -> SlipstreamError:
        return failure(error, f"topic {self._topic}, partition {self._partition}: {what}", self._timeout_s)


def failure(error: Exception, what: str, timeout_s: float) -> SlipstreamError:
    """The error of ours for one of aiokafka's; `what` begins its message."""
    causes = list(_chain(error))  # aiokafka wraps what its sender does not expect, up to two times
    if any(isinstance(cause, _FENCED) for cause in causes):
        return FencedError(
            f"{what}: another worker owns it now ({type(error).__name__}); this one stops, and nothing is lost: "
            "start it again to take part"
        )
    if any(isinstance(cause, _TOO_LARGE) for cause in causes):
        return TopicError(f"{what}: it refuses messages of this size; {RAISE_LIMIT}")
    for code in filter(None, map(_code, causes)):
        told = mapped(confluent_kafka.KafkaError(code), what)
        if isinstance(told, (TopicError, ConfigError)):  # it is gone, or this user may not use it
            return told
    if isinstance(error, (TimeoutError, KafkaConnectionError)):
        return UnavailableError(f"{what} within {timeout_s:.0f} s; is Kafka running?")
    if any(isinstance(cause, UnknownError) or getattr(cause, "retriable", False) for cause in causes):
        # A disk that takes no more is one of these. aiokafka does not try again, and what was written is not known.
        return UnavailableError(f"{what}: {causes[-1]!r}; is the broker well, is its disk full?")
    return SlipstreamError(f"{what}: {causes[-1]!r}")


def _code(error: BaseException) -> int | None:
    """The protocol's code of a broker's answer. aiokafka passes some of them on as their names alone."""
    named = re.match(r"\w+", str(error.args[0])) if error.args else None
    kind: Any = type(error) if isinstance(error, BrokerResponseError) else named and getattr(errors, named[0], None)
    known = isinstance(kind, type) and issubclass(kind, BrokerResponseError)
    return int(kind.errno) if known else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _producer(kafka: KafkaConfig, transactional_id: str, timeout_s: float, compression: str) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        client_id=transactional_id,
        transactional_id=transactional_id,
        # A dead worker's open transaction is aborted by its successor's opening, not by this timeout.
        transaction_timeout_ms=int(min(900.0, 2 * timeout_s) * 1000),
        linger_ms=0,
        max_batch_size=_MAX_BATCH_BYTES,
        compression_type=None if compression == "none" else compression,
        request_timeout_ms=int(timeout_s * 1000),
        **kafka.aiokafka(),
    )
