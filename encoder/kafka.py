"""How the encoder reaches Kafka, and what Kafka's errors become.

`stream.kafka` does the same for the other stages; the two packages share topics and not code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from schemas.errors import ConfigError, FencedError, SlipstreamError, TopicError, UnavailableError

REQUEST_TIMEOUT_S = 10.0
_TOPIC = {
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
}
_AWAY = {KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE}


def client_settings(bootstrap: str, options: Mapping[str, str], **ours: Any) -> dict[str, Any]:
    """Settings for confluent-kafka; `ours` are written with '_' for '.', and win over the user's options."""
    named = {key if callable(value) else key.replace("_", "."): value for key, value in ours.items()}
    # librdkafka's own log would go straight to stderr; what matters of it reaches us as errors.
    base: dict[str, Any] = {"log_level": 0, "log.connection.close": False, "reconnect.backoff.max.ms": 2000}
    return {**base, **options, **named, "bootstrap.servers": bootstrap}


def reason(error: BaseException | KafkaError) -> str:
    """What a confluent-kafka exception says, without its wrapping."""
    inner = error.args[0] if isinstance(error, KafkaException) and error.args else error
    return inner.str() if isinstance(inner, KafkaError) else str(inner)


def mapped(error: KafkaError | KafkaException, where: str) -> SlipstreamError:
    """The error of ours for one of confluent-kafka's; `where` begins its message."""
    inner = error.args[0] if isinstance(error, KafkaException) else error
    message = f"{where}: {reason(error)}"
    code = inner.code() if isinstance(inner, KafkaError) else None
    if code == KafkaError._FENCED:
        return FencedError(message)
    if code in _TOPIC:
        return TopicError(f"{message}; run `slipstream topics create`, or check the prefix and the rights of this user")
    if code in _AWAY or (isinstance(inner, KafkaError) and inner.retriable()):
        return UnavailableError(f"{message}; is Kafka running, and is its address right?")
    return SlipstreamError(message)


def topic_id(bootstrap: str, options: Mapping[str, str], topic: str) -> bytes:
    """The 16 bytes of a topic's UUID: a topic that was deleted and made anew under its name has another one.

    Raises:
        TopicError: there is no such topic.
        UnavailableError: no answer from Kafka.
        ConfigError: librdkafka does not take an option.
    """
    cause: list[KafkaError] = []
    try:
        admin = AdminClient(client_settings(bootstrap, options, error_cb=cause.append))
    except (KafkaException, TypeError, ValueError) as error:
        raise ConfigError(f"a Kafka client cannot be made: {reason(error)} (setting `kafka_options`)") from None
    future = admin.describe_topics(TopicCollection([topic]), request_timeout=REQUEST_TIMEOUT_S)[topic]
    try:
        described = future.result()
    except KafkaException as error:
        admin.poll(0)  # what went wrong below comes by callback, before the request times out
        because = next((f" ({e.str()})" for e in cause if e.code() != KafkaError._ALL_BROKERS_DOWN), "")
        raise mapped(error, f"Kafka at {bootstrap}{because}, topic {topic} cannot be described") from None
    uuid = described.topic_id
    halves = (uuid.get_most_significant_bits(), uuid.get_least_significant_bits())
    return b"".join((half & (1 << 64) - 1).to_bytes(8, "big") for half in halves)
