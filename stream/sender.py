"""The sending edge of a replay: messages in, delivery counts out, and an error for what is not delivered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from edge.kafka import REQUEST_TIMEOUT_S, KafkaConfig, make, mapped
from schemas.errors import UnavailableError
from stream.inject import Kind

#: Messages handed to librdkafka and not yet acknowledged, at most: bounds memory, and the time that a stop takes.
MAX_UNDELIVERED = 50_000
#: A broker may take so long to hear of a topic that was just created.
_NEW_TOPIC_S = 2.0


class Sender:
    """An idempotent producer that counts what was delivered, from delivery reports.

    Attributes:
        delivered: messages by kind that all in-sync replicas acknowledged.
        first_ns, last_ns: Unix ns by this machine's clock of the first send and the last delivery report, 0 before them.
        callbacks: kind -> the `callback` that a message of it must carry.

    Raises:
        ConfigError, TopicError, UnavailableError: a client cannot be made, the topic is missing, Kafka does not answer.
    """

    def __init__(self, kafka: KafkaConfig, topic: str, delivery_timeout_s: float) -> None:
        self.delivered = dict.fromkeys(Kind, 0)
        self.first_ns = self.last_ns = 0
        self._topic = topic
        self._where = f"topic {topic} at {kafka.bootstrap_servers}"
        self._timeout_s = delivery_timeout_s
        self._handed_over = 0
        self._error: KafkaError | None = None
        self.callbacks: dict[int, Callable[..., None]] = {kind: self._counter(kind) for kind in Kind}
        configuration = kafka.client(
            enable_idempotence=True,
            linger_ms=1,
            compression_type="lz4",
            partitioner="murmur2_random",
            # The bound is ours: librdkafka never refuses a message because its queue is full.
            queue_buffering_max_messages=2 * MAX_UNDELIVERED,
            queue_buffering_max_kbytes=2 << 20,
            message_timeout_ms=int(1000 * delivery_timeout_s),
        )
        self._producer: Producer = make(Producer, configuration, kafka)
        self._check_topic()

    def wait_until(self, at_s: float, stop: threading.Event) -> None:
        """Sleep until `at_s` of the monotonic clock, handling delivery reports now and then."""
        while not stop.is_set() and (left_s := at_s - time.monotonic()) > 0:
            # Not poll with the time that is left: librdkafka counts whole milliseconds, and spins through the last one.
            self._poll(0)
            stop.wait(min(left_s, 0.1))

    def send(self, messages: list[dict[str, Any]], stop: threading.Event) -> None:
        """Hand messages to librdkafka, all or, if `stop` is set, none; waits while too many are under way."""
        self._poll(0)
        while not stop.is_set() and self._undelivered + len(messages) > MAX_UNDELIVERED:
            self._poll(0.1)
        if stop.is_set():
            return
        self.first_ns = self.first_ns or time.time_ns()
        try:
            accepted = self._producer.produce_batch(self._topic, messages)
        except KafkaException as error:
            raise mapped(error, self._where) from None
        self._handed_over += accepted
        if accepted < len(messages):
            self._error = self._error or next(message["_error"] for message in messages if "_error" in message)
        self._check()

    def flush(self) -> None:
        """Returns when everything that was handed over is acknowledged."""
        left = self._producer.flush(self._timeout_s + REQUEST_TIMEOUT_S)  # librdkafka gives each up before that
        self._check()
        if left:
            raise UnavailableError(f"{self._where}: {left} messages are not acknowledged; is Kafka healthy?")

    @property
    def _undelivered(self) -> int:
        return self._handed_over - sum(self.delivered.values())

    def _counter(self, kind: Kind) -> Callable[..., None]:
        delivered = self.delivered

        def count(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                self._error = self._error or error
                return
            delivered[kind] += 1
            self.last_ns = time.time_ns()

        return count

    def _poll(self, timeout_s: float) -> None:
        self._producer.poll(timeout_s)
        self._check()

    def _check(self) -> None:
        """Raise if a message was refused or not delivered; what is still queued is given up."""
        if self._error is None:
            return
        self._producer.purge()
        raise mapped(
            self._error,
            f"{self._where}: a message could not be delivered, after {sum(self.delivered.values())} of {self._handed_over}; "
            "send the log again, what arrives twice counts once",
        )

    def _check_topic(self) -> None:
        give_up_s = time.monotonic() + _NEW_TOPIC_S
        while True:
            try:
                found = self._producer.list_topics(self._topic, timeout=REQUEST_TIMEOUT_S).topics[self._topic]
            except KafkaException as error:
                raise mapped(error, self._where) from None
            if found.error is None:
                return
            if time.monotonic() > give_up_s:
                raise mapped(found.error, self._where)
            time.sleep(0.1)
