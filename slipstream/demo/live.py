"""What is recorded while events stream in: the embeddings that a ranker would have read, lags, freshness and dead letters."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ranker.reader import StateReader
from schemas.errors import SlipstreamError
from schemas.log import EventLog
from slipstream.demo.freshness import RefreshLog, percentiles
from slipstream.demo.report import LagSample
from slipstream.demo.view import Glance, ReplayView
from slipstream.pipeline import Pipeline
from stream.replay import ReplayReport


class EmbeddingRecorder:
    """Reads user embeddings from Redis as a ranker would, each just before its event is sent.

    Attributes:
        embeddings: `(n, d)`, one row per event of the log.
        known: `(n,)`, whether there was a state.
        failed: events whose read failed as a whole (Redis away): they stay unknown.
    """

    def __init__(self, reader: StateReader, log: EventLog, d_model: int) -> None:
        self._reader, self._log = reader, log
        self.embeddings = np.zeros((len(log), d_model), np.float32)
        self.known = np.zeros(len(log), bool)
        self.failed = 0

    def __call__(self, events: NDArray[np.int64]) -> None:
        """Record for the events (indices into the log) that are about to be sent."""
        try:
            rows = self._reader.read([self._log.users[u] for u in self._log.user_index[events]], embedding_only=True)
        except SlipstreamError:
            self.failed += len(events)
            return
        for event, row in zip(events.tolist(), rows, strict=True):
            if row.usable and row.embedding is not None:
                self.embeddings[event] = row.embedding
                self.known[event] = True


def read_embeddings(
    reader: StateReader, users: list[str], d_model: int, at_once: int = 500
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The embeddings of many users now: `(u, d)`, and `(u,)` whether each has a state."""
    embeddings = np.zeros((len(users), d_model), np.float32)
    known = np.zeros(len(users), bool)
    for start in range(0, len(users), at_once):
        for place, row in enumerate(reader.read(users[start : start + at_once], embedding_only=True), start):
            if row.usable and row.embedding is not None:
                embeddings[place], known[place] = row.embedding, True
    return embeddings, known


class Watcher:
    """Samples the pipeline in a thread of its own, and shows it.

    Attributes:
        began_ms: when the watch began, Unix ms.
        lags: every sample, with the time since then.
        error: what ended the watch early, for the main thread to raise.
    """

    EVERY_S = 0.5
    #: Counting dead letters means reading them.
    DEAD_LETTERS_EVERY_S = 2.0

    def __init__(
        self, view: ReplayView, refreshes: RefreshLog, pipeline: Pipeline, progress: Callable[[], ReplayReport]
    ) -> None:
        self._view, self._refreshes, self._pipeline, self._progress = view, refreshes, pipeline, progress
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-watcher", daemon=True)
        self._dead_letters = 0
        self._dead_letters_at_s = float("-inf")
        self.began_ms = time.time_ns() // 1_000_000
        self._began_s = time.monotonic()
        self.lags: list[LagSample] = []
        self.error: SlipstreamError | None = None

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stop.wait(self.EVERY_S):
                self._sample()
        except SlipstreamError as error:
            self.error = error

    def _sample(self) -> None:
        lag = self._pipeline.lag()
        self._refreshes.poll()
        now_s = time.monotonic()
        if now_s - self._dead_letters_at_s >= self.DEAD_LETTERS_EVERY_S:
            self._dead_letters, self._dead_letters_at_s = self._pipeline.dead_letters(), now_s
        self.lags.append(LagSample(now_s - self._began_s, lag))
        report = self._progress()
        self._view.show(
            Glance(
                sent=report.events_sent,
                events_per_s=report.events_per_s,
                lag=lag,
                freshness_ms=percentiles(self._refreshes.recent_freshness_ms()),
                dead_letters=self._dead_letters,
                refreshes=self._refreshes.kinds.total(),
            ),
            now_s,
        )
