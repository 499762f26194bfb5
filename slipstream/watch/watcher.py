"""Two threads that look at Kafka and at Redis once a second each, and the moment that both make together.

When one of them is away its figures stand still and say so; the other's go on, and so do its own when it is back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from edge.kafka import KafkaConfig
from ranker.reader import wall_clock_ms
from schemas.errors import SlipstreamError
from schemas.names import Names
from slipstream.demo.freshness import percentiles
from slipstream.watch.figures import UNITS, Freshness, LagHistory, Letters, Model, Rates, Snapshot, Source, Stage
from slipstream.watch.freshness import FreshnessCurve, Waiting
from slipstream.watch.kafka import KafkaLook, KafkaSource
from slipstream.watch.states import States
from slipstream.watch.user import Shelf, model_note

_log = logging.getLogger(__name__)
EVERY_S = 1.0
#: Freshness is measured by looks at headers: their rate bounds how much too high a measure can be.
HEADERS_EVERY_S = 0.25
#: The figures beside the curve are of so long.
WINDOW_S = 60
#: Kafka's clients wait for long before they give up; a person is told sooner.
SILENT_AFTER_S = 3.0


class _Part:
    """One of the two: does its look over and over."""

    def __init__(self, name: str, look: Callable[[], None], every_s: float, silent_after_s: float) -> None:
        self._name, self._look, self._every_s, self._silent_after_s = name, look, every_s, silent_after_s
        self._said = ""
        self._answered_ms: int | None = None
        self._began_s = self._answered_s = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(self._every_s):
            try:
                self._look()
                self._said, self._answered_ms, self._answered_s = "", wall_clock_ms(), time.monotonic()
            except SlipstreamError as error:
                self._said = str(error)
            except Exception as error:  # a mistake of ours must not end the watch unseen
                _log.exception("looking at %s", self._name)
                self._said = f"a look at it failed: {type(error).__name__}: {error}"

    def source(self) -> Source:
        silent_s = time.monotonic() - self._answered_s
        said = self._said
        if not said and (silent_s > self._silent_after_s or self._answered_ms is None):
            said = f"no answer for {silent_s:.0f} s"
        return Source(not said, said, self._answered_ms)


class Watcher:
    """Watches one deployment until it is closed."""

    def __init__(self, kafka: KafkaConfig, names: Names, states: States, shelf: Shelf) -> None:
        self.states, self.shelf = states, shelf
        self._names = names
        self._kafka_source = KafkaSource(kafka, names)
        self._lock = threading.Lock()  # of all below
        self._waiting, self._curve, self._rates = Waiting(), FreshnessCurve(), Rates()
        self._histories = {stage: LagHistory() for stage in UNITS}
        self._looked: KafkaLook | None = None
        self._active_asked_s = float("-inf")
        self._stop = threading.Event()
        self._kafka = _Part("Kafka", self._look_at_kafka, EVERY_S, SILENT_AFTER_S)
        self._redis = _Part("Redis", self._look_at_redis, HEADERS_EVERY_S, SILENT_AFTER_S)
        self._threads = [
            threading.Thread(target=part.run, args=(self._stop,), name="watch", daemon=True)
            for part in (self._kafka, self._redis)
        ]

    def __enter__(self) -> Watcher:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(5)
        if not any(thread.is_alive() for thread in self._threads):
            self._kafka_source.close()

    def _look_at_kafka(self) -> None:
        bundle = self.shelf.bundle
        look = self._kafka_source.look(self.states.active or (bundle.model_id if bundle else None))
        with self._lock:
            self._looked = look
            self._waiting.see(look.seen)
            self._rates.add(time.monotonic(), look.moved)
            for stage, lag in look.lags.items():
                self._histories[stage].add(wall_clock_ms(), lag)

    def _look_at_redis(self) -> None:
        if time.monotonic() - self._active_asked_s >= EVERY_S:
            self.states.refresh_active()
            self._active_asked_s = time.monotonic()
        with self._lock:
            users, looked = self._waiting.users, self._looked
        if not users or looked is None:
            return
        headers = self.states.headers(users)
        with self._lock:
            self._curve.add(self._waiting.measure(headers, looked.topic_id, wall_clock_ms()), wall_clock_ms())

    def snapshot(self) -> Snapshot:
        with self._lock:
            at_ms, looked = wall_clock_ms(), self._looked
            stages = []
            for stage, unit in UNITS.items():
                lag = looked.lags.get(stage) if looked else None
                stages.append(Stage(stage, unit, lag, self._rates.per_s(stage), self._histories[stage].points))
            letters = Letters(None, 0, [])
            if looked is not None:
                letters = Letters(looked.letters_total, looked.letters_new, looked.letters)
            redis, active = self._redis.source(), self.states.active
            note = model_note(self.shelf.bundle, active) if redis.answered_ms is not None else ""
            return Snapshot(
                at_ms,
                self._names.prefix,
                self._kafka.source(),
                redis,
                Model(active, note),
                self._freshness(at_ms),
                self._rates.per_s("arriving"),
                stages,
                letters,
            )

    def _freshness(self, at_ms: int) -> Freshness:
        lately = self._curve.since(at_ms - 1000 * WINDOW_S)
        found = percentiles(lately)
        return Freshness(
            WINDOW_S,
            len(lately),
            found.get("p50"),
            found.get("p99"),
            len(self._waiting),
            self._waiting.oldest_ms(at_ms),
            [(point.at_ms, point.p50_ms, point.p99_ms) for point in self._curve.points(at_ms)],
        )
