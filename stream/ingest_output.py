"""What an ingest worker sends: packed batches, and what is not valid as dead letters. Says when all of a pass is delivered."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from edge.kafka import make, mapped
from schemas.errors import SlipstreamError
from stream.config import IngestConfig
from stream.dead_letters import Headers, Provenance, dead_letter_headers, without_value
from stream.in_flight import Pass
from stream.ingest_traces import OnDelivery, PassTraces
from stream.metrics import IngestMetrics
from stream.pack import Packed
from stream.topics import DEAD_LETTER_MAX_MESSAGE_BYTES

logger = logging.getLogger(__name__)


class IngestOutput:
    """One producer. Its deliveries are noticed in `wait`, which a worker's loop calls instead of sleeping.

    Args:
        stop: nothing more is sent once it is set and the producer's queue is full.
    """

    def __init__(self, config: IngestConfig, metrics: IngestMetrics, stop: threading.Event) -> None:
        self._names = config.names
        self._metrics = metrics
        self._stop = stop
        self._failure: SlipstreamError | None = None  # of a delivery
        self._producer: Producer = make(Producer, _producer_settings(config), config.kafka)

    def wait(self, seconds: float) -> None:
        """For deliveries, at most so long."""
        self._producer.poll(seconds)

    def flush(self, seconds: float) -> bool:
        """Wait until all is delivered. False: it is not, after so long."""
        return not self._producer.flush(seconds)

    def raise_failure(self) -> None:
        """What was refused, or not taken in time, if anything was."""
        if self._failure is not None:
            raise self._failure

    def send(
        self, begun: Pass, packed: Packed, messages: Sequence[Message], arrived_s: float, traced: PassTraces | None
    ) -> None:
        """Count all of it in `begun.undelivered`, and hand it to the producer.

        Args:
            messages: of which `packed` was made.
            arrived_s: when the oldest of them came to Kafka, Unix seconds.

        Raises:
            SlipstreamError: a topic cannot be written.
        """
        begun.undelivered = len(packed.batches) + len(packed.rejected)
        on_delivery = partial(self._on_delivery, begun, arrived_s)
        for batch in packed.batches:
            headers, told = traced.sending(batch.partition, on_delivery) if traced else ([], on_delivery)
            self._produce(self._names.batches, batch.partition, batch.value, None, headers, told)
        for letter in packed.rejected:
            self._bury(messages[letter.at], letter.reason, letter.error, on_delivery)

    def _produce(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        key: bytes | None,
        headers: Headers,
        on_delivery: OnDelivery,
    ) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, partition=partition, headers=headers, on_delivery=on_delivery)
                return
            except BufferError:  # full: wait for deliveries
                if self._stop.is_set():
                    return  # its pass stays undelivered, so it is not committed and comes again
                self._producer.poll(0.05)
                self.raise_failure()
            except KafkaException as error:
                raise mapped(error, f"topic {topic} cannot be written") from None

    def _bury(self, message: Message, reason: str, error: str, on_delivery: OnDelivery) -> None:
        provenance = Provenance(
            cast(str, message.topic()),
            cast(int, message.partition()),
            cast(int, message.offset()),
            message.timestamp()[1],
        )
        original = cast("list[tuple[str, bytes | None]]", message.headers() or [])
        headers = dead_letter_headers(reason, error, provenance, original)
        value, key = message.value(), message.key()

        def delivered(failure: KafkaError | None, letter: Message) -> None:
            # Only a dead letters topic that somebody else made can be too small. One message must not stop the rest.
            if failure is not None and failure.code() == KafkaError.MSG_SIZE_TOO_LARGE and letter.value() is not None:
                text = "%s: too large for topic %s, kept there without its value"
                logger.error(text, provenance, letter.topic(), extra=provenance._asdict())
                bare = without_value(headers, len(value or b""))
                self._produce(self._names.dead_letters, -1, None, key, bare, on_delivery)
            else:
                on_delivery(failure, letter)

        self._produce(self._names.dead_letters, -1, value, key, headers, delivered)
        self._metrics.dead_letters.labels(reason).inc()

    def _on_delivery(self, begun: Pass, arrived_s: float, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failure = self._failure or mapped(error, f"topic {message.topic()} cannot be written")
            return
        begun.undelivered -= 1
        if not begun.undelivered:
            self._metrics.stage.freshness.observe(max(0.0, time.time() - arrived_s))


def _producer_settings(config: IngestConfig) -> dict[str, Any]:
    return config.kafka.client(
        enable_idempotence=True,
        linger_ms=0,  # a pass is the linger
        compression_type=config.compression,
        message_max_bytes=DEAD_LETTER_MAX_MESSAGE_BYTES,
        message_timeout_ms=int(config.give_up_after_s * 1000),
        queue_buffering_max_kbytes=64 << 10,
    )
