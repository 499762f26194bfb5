"""Asks Kafka once in a while whether it is there, and a stage's topics with it: for readiness, and to give up with a reason.

Clients retry by themselves, some for ever: this tells since when they do so in vain, and why.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from edge.kafka import KafkaConfig, is_login, make, mapped, reason
from schemas.errors import SlipstreamError, TopicError, UnavailableError

logger = logging.getLogger(__name__)

INTERVAL_S = 2.0
ANSWER_S = 2.0
#: Trouble with a topic that lasts so long is no broker that has just started and does not know all yet.
SURE_S = 6.0
#: A login that is refused for so long was not renewed in time: a new process may be given another one.
LOGIN_REFUSED_S = 30.0
#: Passes from one look at the topics' ids to the next.
_IDENTIFY_EVERY = 10
_MISSING = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED}


class BrokerWatch:
    """A thread that asks for the topics' metadata.

    Args:
        topics: without which the stage cannot work.
        give_up_after_s: how long Kafka may be away; infinity: for ever.
        on_change: told why Kafka or a topic cannot be used, None when all is well. Called from the thread.
    """

    def __init__(
        self,
        kafka: KafkaConfig,
        topics: Sequence[str],
        give_up_after_s: float,
        on_change: Callable[[str | None], None],
    ) -> None:
        self._kafka = kafka
        self._topics = list(topics)
        self._give_up_after_s = give_up_after_s
        self._on_change = on_change
        self._ids: dict[str, str] = {}  # of topics, when they were first seen
        self._remade: TopicError | None = None
        self._asked = 0
        self._cause: KafkaError | None = None
        self._away_since: float | None = None
        self._trouble: SlipstreamError | None = None  # with a topic
        self._trouble_since = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="broker-watch", daemon=True)

    def __enter__(self) -> BrokerWatch:
        settings = self._kafka.client(error_cb=self._remember, allow_auto_create_topics=False)
        self._client: AdminClient = make(AdminClient, settings, self._kafka)
        self._on_change(None)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(ANSWER_S + 1)

    def _remember(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._cause = error

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            try:
                trouble = self._ask()
            except (KafkaException, TimeoutError):
                if self._away_since is None:
                    self._away_since = time.monotonic() - ANSWER_S
                    logger.warning("Kafka at %s does not answer; retrying", self._kafka.bootstrap_servers)
                    self._on_change(f"Kafka at {self._kafka.bootstrap_servers} does not answer")
                continue
            came_back = self._away_since is not None
            if self._away_since is not None:
                logger.warning("Kafka answers again after %.0f s", time.monotonic() - self._away_since)
                self._away_since = self._cause = None
            if trouble is None:
                if self._trouble is not None or came_back:
                    self._on_change(None)
            elif self._trouble is None or came_back:
                self._trouble_since = time.monotonic()
                logger.warning("%s", trouble)
                self._on_change(str(trouble))
            self._trouble = trouble

    def _ask(self) -> SlipstreamError | None:
        """What is wrong with a topic. Raises when there is no answer."""
        where = f"at {self._kafka.bootstrap_servers}"
        self._asked += 1
        for topic in self._topics:
            found = self._client.list_topics(topic, timeout=ANSWER_S)
            self._client.poll(0)  # calls _remember
            if (error := found.topics[topic].error) is not None and error.code() in _MISSING:
                return mapped(error, f"topic {topic} {where}")
        # Rarely, and not when Kafka has just come back: see edge.kafka.Admin.partitions for what `describe_topics` can do.
        if self._asked % _IDENTIFY_EVERY == 1 and self._away_since is None:
            futures = self._client.describe_topics(TopicCollection(self._topics), request_timeout=ANSWER_S)
            for topic, future in futures.items():
                identity = str(future.result(ANSWER_S + 1).topic_id)
                if self._ids.setdefault(topic, identity) != identity:
                    self._remade = TopicError(f"topic {topic} {where} was deleted and made anew: start the stage again")
        return self._remade

    def check(self) -> None:
        """Returns while there is hope.

        Raises:
            UnavailableError: Kafka has not answered for `give_up_after_s`.
            ConfigError: it refuses this login now.
            TopicError: a topic is gone, another one has its name, or this user may not use it any more.
        """
        since, cause, trouble = self._away_since, self._cause, self._trouble
        away_s = time.monotonic() - since if since is not None else 0.0
        where = f"Kafka at {self._kafka.bootstrap_servers}"
        if cause is not None and is_login(cause) and away_s > min(LOGIN_REFUSED_S, self._give_up_after_s):
            raise mapped(cause, where)
        if away_s > self._give_up_after_s:
            because = f" ({reason(cause)})" if cause is not None else ""
            raise UnavailableError(
                f"{where} has not answered for {self._give_up_after_s:.0f} s{because}: nothing is lost, the stage goes on where "
                "it committed when it is started again"
            )
        if trouble is not None and time.monotonic() - self._trouble_since > SURE_S:
            raise trouble
