"""Sends loads by a producer that loses none itself."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from confluent_kafka import KafkaError, Message, Producer
from numpy.typing import NDArray

from bench.chaos.load import Load
from edge.kafka import KafkaConfig, make, mapped
from schemas.errors import UnavailableError
from schemas.event import encode_forget
from schemas.names import Names
from stream.inject import InjectConfig
from stream.pace import FixedRate
from stream.replay import ReplayConfig, ReplayReport, run_replay

#: Until the broker is back, and longer.
_DELIVERY_TIMEOUT_S = 300.0


class Flow:
    """Sends one load after the other until `finish` is called: faults happen while events flow.

    Attributes:
        acknowledged: messages of any kind that the broker has, so far.
        events: events of loads among them, each counted once.
        last_s: monotonic time of the last acknowledgement known.
    """

    def __init__(self, kafka: KafkaConfig, names: Names, loads: Iterator[Load], seed: int) -> None:
        """
        Args:
            loads: without end; each is drawn when its turn comes.
        """
        self._kafka, self._names = kafka, names
        self._loads, self._seed = loads, seed
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
        for number, load in enumerate(self._loads):
            self._send(load, number)
            if self._finish.is_set():
                return

    def _send(self, load: Load, number: int) -> None:
        inject = InjectConfig(
            duplicates=0.03, late=0.05, malformed=0.01, max_delay_events=20_000, seed=self._seed + 1000 * number
        )
        config = ReplayConfig(
            self._kafka,
            self._names,
            FixedRate(load.events_per_s),
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
