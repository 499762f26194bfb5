"""The events of a chaos run: drawn by a seed, and sent by a producer that loses none itself.

Among them: users with more events than a sequence keeps, ties, late events, events that are sent twice, requests to forget a
user, and messages that nobody can read.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from confluent_kafka import KafkaError, Message, Producer
from numpy.typing import NDArray

from edge.kafka import KafkaConfig, make, mapped
from schemas.errors import UnavailableError
from schemas.event import encode_forget
from schemas.log import EventLog
from schemas.names import Names
from schemas.sequence import RECORD
from schemas.vocabulary import Vocabulary
from stream.inject import InjectConfig
from stream.pace import FixedRate
from stream.replay import ReplayConfig, ReplayReport, run_replay

#: So many events of a thousand go to a few users each, whose sequences are full before the end.
_HEAVY_SHARE = 0.15
_EVENTS_PER_HEAVY_USER = 500
_EVENTS_PER_USER = 25
_TIE_MS = 100
_LATE_SHARE = 0.05
_LATE_MS = 600_000
_FORGET_SHARE = 0.002
#: Until the broker is back, and longer.
_DELIVERY_TIMEOUT_S = 300.0
#: Events that flow on while the last faults are not over, at a time.
_MORE_S = 3.0


@dataclass(frozen=True)
class Load:
    """n events in the order of their sending, and m requests to forget a user among them.

    Attributes:
        forget_at: `(m,)` i64, ascending: the event with which each request is sent.
        forget_user: `(m,)` i64, index into `log.users`.
        forget_ms: `(m,)` i64, its timestamp.
    """

    log: EventLog
    forget_at: NDArray[np.int64]
    forget_user: NDArray[np.int64]
    forget_ms: NDArray[np.int64]


def make_load(events: int, users: int, events_per_s: float, start_ms: int, seed: tuple[int, ...]) -> Load:
    """Draw the events. Timestamps go on from `start_ms` as the events will; a part of them is older, and many are equal."""
    rng = np.random.default_rng([*seed, 2])
    heavy = max(1, int(users * _HEAVY_SHARE * _EVENTS_PER_USER / _EVENTS_PER_HEAVY_USER))

    def draw_users(n: int) -> NDArray[np.int64]:
        return np.where(rng.random(n) < _HEAVY_SHARE, rng.integers(0, heavy, n), rng.integers(0, users, n))

    user_index = draw_users(events)  # (n,)
    sent_ms = start_ms + (np.arange(events) * 1000 / events_per_s).astype(np.int64) // _TIE_MS * _TIE_MS  # (n,)
    late_ms = np.where(rng.random(events) < _LATE_SHARE, rng.integers(0, _LATE_MS, events), 0)
    vocabulary = Vocabulary()
    records = np.empty(events, RECORD)
    records["timestamp_ms"] = sent_ms - late_ms
    records["item_id"] = rng.integers(0, 1 << 40, events)
    records["action"] = rng.integers(0, len(vocabulary.actions), events)
    records["surface"] = rng.integers(0, len(vocabulary.surfaces), events)

    forgets = int(events * _FORGET_SHARE)
    forget_at = np.sort(rng.integers(0, events, forgets))  # (m,)
    log = EventLog([f"user-{i}" for i in range(users)], user_index.astype(np.int32), records, vocabulary)
    return Load(log, forget_at, draw_users(forgets), sent_ms[forget_at] - rng.integers(0, _LATE_MS // 10, forgets))


def users_for(events: int) -> int:
    return max(10, events // _EVENTS_PER_USER)


class Flow:
    """Sends a load at a steady rate, and more of its kind until `finish` is called: faults happen while events flow.

    Attributes:
        acknowledged: messages of any kind that the broker has, so far.
        events: events of loads among them, each counted once.
        last_s: monotonic time of the last acknowledgement known.
    """

    def __init__(self, kafka: KafkaConfig, names: Names, events: int, events_per_s: float, seed: int) -> None:
        self._kafka, self._names = kafka, names
        self._events, self._events_per_s, self._seed = events, events_per_s, seed
        self._users = users_for(events)
        self._finish = threading.Event()
        self._stop = threading.Event()
        self._before = self._events_before = 0  # of the loads that are through
        self.acknowledged = self.events = self.malformed = 0
        self.last_s = time.monotonic()

    def finish(self) -> None:
        """End when the load is sent."""
        self._finish.set()

    def stop(self) -> None:
        """End at once."""
        self._finish.set()
        self._stop.set()

    def start(self) -> asyncio.Future[None]:
        """Run it in a thread that nobody waits for at the end of the process: a broker that stays away holds nothing up."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def end(error: BaseException | None) -> None:
            if ended.done():  # cancelled
                return
            if error is None:
                ended.set_result(None)
            else:
                ended.set_exception(error)

        def run() -> None:
            error: BaseException | None = None
            try:
                self.run()
            except Exception as caught:
                error = caught
            with suppress(RuntimeError):  # the loop is closed: nobody asks any more
                loop.call_soon_threadsafe(end, error)

        threading.Thread(target=run, name="flow", daemon=True).start()
        return ended

    def run(self) -> None:
        """Returns when everything is acknowledged. Blocking.

        Raises:
            SlipstreamError: something could not be delivered.
        """
        start_ms = int(time.time() * 1000)
        self._send(make_load(self._events, self._users, self._events_per_s, start_ms, (self._seed,)), 0)
        more = 0
        while not self._finish.is_set():
            more += 1
            events = max(1, int(_MORE_S * self._events_per_s))
            now_ms = int(time.time() * 1000)
            self._send(make_load(events, self._users, self._events_per_s, now_ms, (self._seed, more)), more)

    def _send(self, load: Load, number: int) -> None:
        inject = InjectConfig(
            duplicates=0.03, late=0.05, malformed=0.01, max_delay_events=20_000, seed=self._seed + 1000 * number
        )
        config = ReplayConfig(
            self._kafka,
            self._names,
            FixedRate(self._events_per_s),
            inject,
            key_by_user=False,
            delivery_timeout_s=_DELIVERY_TIMEOUT_S,
        )
        with _Forgetter(self._kafka, self._names.engagements, load) as forgetter:

            def on_progress(report: ReplayReport) -> None:
                acknowledged = self._before + report.messages_sent + forgetter.acknowledged
                if acknowledged > self.acknowledged:
                    self.last_s = time.monotonic()
                self.acknowledged = acknowledged
                self.events = self._events_before + report.events_sent

            report = run_replay(config, load.log, on_progress, forgetter, self._stop)
        on_progress(report)
        self.malformed += report.malformed_sent
        self._before, self._events_before = self.acknowledged, self.events


class _Forgetter:
    """Sends each request to forget when its event goes out: the replay's `before_send`."""

    def __init__(self, kafka: KafkaConfig, topic: str, load: Load) -> None:
        configuration = kafka.client(
            enable_idempotence=True, linger_ms=5, message_timeout_ms=int(1000 * _DELIVERY_TIMEOUT_S)
        )
        self._producer: Producer = make(Producer, configuration, kafka)
        self._topic, self._load = topic, load
        self._sent = 0
        self._error: KafkaError | None = None
        self.acknowledged = 0

    def __enter__(self) -> _Forgetter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._producer.purge()
            return
        left = self._producer.flush(_DELIVERY_TIMEOUT_S)
        self._check()
        if left:
            raise UnavailableError(f"topic {self._topic}: {left} requests to forget are not acknowledged")

    def __call__(self, going: NDArray[np.int64]) -> None:
        load = self._load
        until = int(np.searchsorted(load.forget_at, going.max(), side="right"))
        for i in range(self._sent, until):
            user, timestamp_ms = load.log.users[load.forget_user[i]], int(load.forget_ms[i])
            self._producer.produce(self._topic, encode_forget(user, timestamp_ms), on_delivery=self._delivered)
        self._sent = max(self._sent, until)
        self._producer.poll(0)
        self._check()

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self.acknowledged += 1
        else:
            self._error = self._error or error

    def _check(self) -> None:
        if self._error is not None:
            raise mapped(self._error, f"topic {self._topic}: a request to forget could not be delivered")
