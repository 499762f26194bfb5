"""Freshness as a client sees it: events of its own, each of the next of a few users, and when a reader finds them in states.

Faults do not stop the clock: an event that was sent while something was away counts with all the time that it took.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from itertools import count
from typing import NamedTuple

from confluent_kafka import KafkaError, Message, Producer

from bench.chaos.load import now_ms
from edge.kafka import KafkaConfig, make
from ranker.reader import StateReader
from schemas.errors import UnavailableError
from schemas.event import encode_engagement
from schemas.names import Names
from schemas.state import StateLayout
from schemas.vocabulary import Vocabulary

_USERS = 20
_DELIVERY_TIMEOUT_S = 300.0
#: How often Redis is asked: so exact are the times.
_POLL_S = 0.01
_DEADLINE_MS = 2000
#: For the last ones.
_WAIT_S = 120.0


class Probe(NamedTuple):
    """One event: when it was handed to the producer (monotonic), and how long it took until its state was readable."""

    sent_s: float
    took_ms: float


class Prober:
    """
    Attributes:
        found: events that were found in states.
        acknowledged: events that the broker has.
        lost: events that were not found in time.
    """

    def __init__(self, kafka: KafkaConfig, names: Names, redis_url: str, layout: StateLayout, every_s: float) -> None:
        settings = kafka.client(
            enable_idempotence=True, linger_ms=0, message_timeout_ms=int(1000 * _DELIVERY_TIMEOUT_S)
        )
        self._producer: Producer = make(Producer, settings, kafka)
        self._topic, self._every_s = names.engagements, every_s
        self._reader = StateReader(redis_url, layout, names, deadline_ms=_DEADLINE_MS)
        self._waiting: dict[str, deque[tuple[int, float]]] = {}  # (item, sent_s) of each user, ascending
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probes", daemon=True)
        self.found: list[Probe] = []
        self.acknowledged = self.lost = 0

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Send no more, and wait for the last ones. Blocking."""
        self._stop.set()
        self._thread.join()
        self._reader.close()

    def _run(self) -> None:
        numbers, due_s = count(1), time.monotonic()
        deadline: float | None = None
        while deadline is None or (self._waiting and time.monotonic() < deadline):
            if deadline is None and self._stop.is_set():
                deadline = time.monotonic() + _WAIT_S
            now_s = time.monotonic()
            if deadline is None and now_s >= due_s:
                self._send(next(numbers))
                due_s = max(due_s + self._every_s, now_s)
            self._producer.poll(0)
            if self._waiting:
                self._look()
                time.sleep(_POLL_S)
            else:
                self._stop.wait(max(0.0, due_s - time.monotonic()))
        self._producer.flush(_WAIT_S)
        self.lost = sum(map(len, self._waiting.values()))

    def _send(self, number: int) -> None:
        user, vocabulary = f"probe-{number % _USERS}", Vocabulary()
        value = encode_engagement(user, number, vocabulary.actions[0], vocabulary.surfaces[0], now_ms())
        self._waiting.setdefault(user, deque()).append((number, time.monotonic()))
        self._producer.produce(self._topic, value, on_delivery=self._delivered)

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        self.acknowledged += error is None

    def _look(self) -> None:
        try:
            rows = self._reader.read(list(self._waiting))
        except UnavailableError:
            return
        at_s = time.monotonic()
        for row in rows:
            if row.state is None or not row.length:
                continue
            newest, waiting = int(row.state.events["item_id"][-1]), self._waiting[row.user]
            while waiting and waiting[0][0] <= newest:
                _, sent_s = waiting.popleft()
                self.found.append(Probe(sent_s, 1000 * (at_s - sent_s)))
            if not waiting:
                del self._waiting[row.user]
