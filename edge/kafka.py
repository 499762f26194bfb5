"""How every client reaches Kafka, and what Kafka's errors become.

Options are given once, in librdkafka's words (`security.protocol`, `sasl.username`, ...), and translated for aiokafka, which
Faust runs on.
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from edge.masking import MASK, masked, redacted
from edge.security import aiokafka_security
from schemas.errors import ConfigError, FencedError, SlipstreamError, TopicError, UnavailableError

__all__ = ["MASK", "Admin", "KafkaConfig", "is_login", "make", "mapped", "masked", "reason", "topic_id"]

T = TypeVar("T")

#: Options that make librdkafka talk.
_LOGGING = ("log_level", "debug")
#: How long one question to a broker may take before it counts as not answered.
REQUEST_TIMEOUT_S = 10.0
#: A login that is refused does not end the wait for an answer: the first waits are short, to look.
_FIRST_TIMEOUT_S = 0.5
_OTHER_BROKERS_S = 2.0


@dataclass(frozen=True)
class KafkaConfig:
    """Where Kafka is and how to log in.

    Attributes:
        bootstrap_servers: `host:port`, several with commas.
        options: librdkafka options for every client, such as SASL and TLS. Secrets in it are masked when it is printed.
    """

    bootstrap_servers: str
    options: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"KafkaConfig(bootstrap_servers={self.bootstrap_servers!r}, options={masked(self.options)!r})"

    def client(self, **more: Any) -> dict[str, Any]:
        """A configuration for confluent-kafka; `more` is given with '_' for '.', and wins over `options`."""
        # Callbacks (`error_cb`, `on_commit`) keep their names: they are of confluent-kafka, not of librdkafka.
        ours = {key if callable(value) else key.replace("_", "."): value for key, value in more.items()}
        # librdkafka's own log would go straight to stderr; what matters of it reaches us as errors.
        base: dict[str, Any] = {"log_level": 0, "log.connection.close": False, "reconnect.backoff.max.ms": 2000}
        if not self.options.keys().isdisjoint(_LOGGING):  # somebody wants to read it: as our log's lines
            base["logger"] = logging.getLogger("librdkafka")
        return {**base, **self.options, **ours, "bootstrap.servers": self.bootstrap_servers}

    def aiokafka(self) -> dict[str, Any]:
        """Security arguments of aiokafka's clients.

        Raises:
            ConfigError: an option is wrong, or is one that aiokafka cannot be given.
        """
        return dict(self._aiokafka)

    @cached_property
    def _aiokafka(self) -> dict[str, Any]:
        return aiokafka_security(self.options)  # files are read once, and tokens are shared by all clients


class Admin:
    """An administration client that remembers why Kafka does not answer: a request that times out does not say so itself.

    Attributes:
        kafka: as given.
        client: confluent-kafka's.

    Raises:
        ConfigError: librdkafka does not take an option.
    """

    def __init__(self, kafka: KafkaConfig) -> None:
        self.kafka = kafka
        self._cause: KafkaError | None = None
        self._down = False
        self.client = self._connect()

    def _connect(self) -> AdminClient:
        settings = self.kafka.client(
            error_cb=self._remember, allow_auto_create_topics=False
        )  # a question must make none
        return make(AdminClient, settings, self.kafka)

    def _remember(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._down = True
        elif self._cause is None or not is_login(self._cause):  # what follows from a refused login says less
            self._cause = error

    def partitions(self, topic: str) -> int | None:
        """How many partitions the topic has, None if there is no such topic. A login that is refused is told at once.

        Not by `describe_topics` or `describe_cluster`: librdkafka 2.16 ends the whole process ("Assertion `rko_result' failed")
        when a broker's answer names no brokers, as that of a broker that has just come back to life does.

        Raises:
            ConfigError: no broker takes this login, or no broker's certificate is trusted.
            TopicError: this user may not see the topic.
            UnavailableError: no answer.
        """
        begun_s, timeout_s = time.monotonic(), _FIRST_TIMEOUT_S
        give_up_s = begun_s + REQUEST_TIMEOUT_S
        while True:
            try:
                found = self.client.list_topics(topic, timeout=timeout_s).topics[topic]
            except KafkaException as error:
                self.client.poll(0)  # calls _remember
                refused = self._cause is not None and is_login(self._cause)
                # One of several brokers may be wrong by itself.
                if self._cause and refused and (self._down or time.monotonic() - begun_s > _OTHER_BROKERS_S):
                    raise mapped(self._cause, f"Kafka at {self.kafka.bootstrap_servers}") from None
                if time.monotonic() >= give_up_s:
                    raise self.failed(error, f"topic {topic}") from None
                timeout_s = min(2 * timeout_s, max(_FIRST_TIMEOUT_S, give_up_s - time.monotonic()))
                continue
            if found.error is None or found.error.code() == KafkaError.LEADER_NOT_AVAILABLE:
                return len(found.partitions) or None
            if found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return None
            raise mapped(found.error, f"Kafka at {self.kafka.bootstrap_servers}, topic {topic}")

    def failed(self, error: KafkaException, what: str) -> SlipstreamError:
        """The error of ours for a failed request."""
        self.client.poll(0)  # calls _remember
        cause, self._cause = self._cause, None
        if cause is not None and is_login(cause):
            return mapped(cause, f"Kafka at {self.kafka.bootstrap_servers}")
        because = f" ({cause.str()})" if cause else ""
        failure = mapped(error, f"Kafka at {self.kafka.bootstrap_servers}{because}, {what}")
        if isinstance(failure, UnavailableError):
            # librdkafka 2.16: after its broker was away a client may never find a group's coordinator again; a new one does.
            self.reconnect()
        return failure

    def reconnect(self) -> None:
        """A client that knows nothing yet, instead of one that believes what was true before its broker went."""
        self.client = self._connect()


def make(client: Callable[..., T], configuration: dict[str, Any], kafka: KafkaConfig) -> T:
    """Construct a confluent-kafka client; an option that it refuses becomes a ConfigError."""
    try:
        return client(configuration)
    except (KafkaException, TypeError, ValueError) as error:
        why = redacted(reason(error), kafka.options)
        raise ConfigError(f"a Kafka client cannot be made with {kafka!r}: {why} (setting `kafka_options`)") from None


def reason(error: BaseException | KafkaError) -> str:
    """What a confluent-kafka exception says, without its wrapping."""
    inner = error.args[0] if isinstance(error, KafkaException) and error.args else error
    return inner.str() if isinstance(inner, KafkaError) else str(inner)


_FENCED = {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}
_TOPIC = {
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
}
#: A login that a broker refuses, or a certificate that one of the two does not trust.
_LOGIN = {
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.ILLEGAL_SASL_STATE,
}
_RIGHTS = {
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}
_TOO_LARGE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE}
_AWAY = {
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._MSG_TIMED_OUT,
    # It is there, and busy with becoming itself again.
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.KAFKA_STORAGE_ERROR,
}


#: What to do about a topic that refuses messages for their size.
RAISE_LIMIT = "its max.message.bytes is smaller than what `slipstream topics create` sets: raise it, and start again"


def is_login(error: KafkaError) -> bool:
    """A broker that misses the client's certificate says so when the handshake is over: then it is an error of the transport."""
    return error.code() in _LOGIN or (error.code() == KafkaError._TRANSPORT and "SSL routines" in error.str())


def mapped(error: KafkaError | KafkaException, where: str) -> SlipstreamError:
    """The error of ours for one of confluent-kafka's; `where` begins its message."""
    inner = error.args[0] if isinstance(error, KafkaException) else error
    message = f"{where}: {reason(error)}"
    code = inner.code() if isinstance(inner, KafkaError) else None
    if code in _FENCED:
        return FencedError(message)
    if code in _TOPIC:
        return TopicError(
            f"{message}; create the topics with `slipstream topics create`, or check the rights of this user"
        )
    if isinstance(inner, KafkaError) and is_login(inner):
        return ConfigError(f"{message}; check the login and the certificates of `kafka_options`")
    if code in _RIGHTS:
        return ConfigError(
            f"{message}; give this user (`kafka_options`) the right, docs/operations.md lists what each stage needs"
        )
    if code in _TOO_LARGE:
        return TopicError(f"{message}; {RAISE_LIMIT}")
    if code in _AWAY or (isinstance(inner, KafkaError) and inner.retriable()):
        return UnavailableError(f"{message}; is Kafka running, and is its address right?")
    return SlipstreamError(message)


def topic_id(kafka: KafkaConfig, topic: str) -> bytes:
    """The topic's UUID, 16 bytes, big endian: a topic that is deleted and made again has another.

    Raises:
        TopicError, UnavailableError: it is missing, or Kafka does not answer.
    """
    admin = Admin(kafka)
    if admin.partitions(topic) is None:
        where = f"Kafka at {kafka.bootstrap_servers}, topic {topic}"
        raise mapped(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), where)
    # The brokers are there by now; see `partitions` for what would come of asking earlier.
    future = admin.client.describe_topics(TopicCollection([topic]), request_timeout=REQUEST_TIMEOUT_S)[topic]
    try:
        uuid = future.result().topic_id
    except KafkaException as error:
        raise admin.failed(error, f"topic {topic}") from None
    return struct.pack(">qq", uuid.get_most_significant_bits(), uuid.get_least_significant_bits())
