"""Asks Kafka once in a while whether it is there: for readiness, and to give up after a while."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from edge.kafka import KafkaConfig, make
from schemas.errors import UnavailableError

logger = logging.getLogger(__name__)

INTERVAL_S = 2.0
ANSWER_S = 2.0


class BrokerWatch:
    """A thread that asks for a topic's metadata. Clients retry by themselves; this tells since when they do so in vain."""

    def __init__(
        self, kafka: KafkaConfig, topic: str, give_up_after_s: float, on_change: Callable[[bool], None]
    ) -> None:
        self._kafka = kafka
        self._topic = topic
        self._give_up_after_s = give_up_after_s
        self._on_change = on_change
        self._away_since: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="broker-watch", daemon=True)

    def __enter__(self) -> BrokerWatch:
        self._client: AdminClient = make(AdminClient, self._kafka.client(), self._kafka)
        self._on_change(True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(ANSWER_S + 1)

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            try:
                self._client.list_topics(self._topic, timeout=ANSWER_S)
            except KafkaException:
                if self._away_since is None:
                    self._away_since = time.monotonic() - ANSWER_S
                    logger.warning("Kafka at %s does not answer; retrying", self._kafka.bootstrap_servers)
                    self._on_change(False)
            else:
                if self._away_since is not None:
                    logger.warning("Kafka answers again after %.0f s", time.monotonic() - self._away_since)
                    self._away_since = None
                    self._on_change(True)

    def check(self) -> None:
        """Returns while there is hope.

        Raises:
            UnavailableError: Kafka has not answered for `give_up_after_s`.
        """
        since = self._away_since
        if since is not None and time.monotonic() - since > self._give_up_after_s:
            raise UnavailableError(
                f"Kafka at {self._kafka.bootstrap_servers} has not answered for {self._give_up_after_s:.0f} s: nothing is lost, "
                "the stage goes on where it committed when it is started again"
            )
