"""One request: read the user's state, cross the candidates with it; popularity where that does not work out in time.

Reads of requests that come together are one round trip, and their crossings one run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from encoder.bundle import load_bundle
from ranker import AsyncStateReader, Catalogue, Dcat, ReaderMetrics, Request, Row, Scores
from ranking_service.batcher import Batcher
from ranking_service.contract import RankAnswer, RankRequest
from ranking_service.metrics import ServiceMetrics
from schemas.errors import ConfigError, SlipstreamError
from schemas.names import Names

_log = logging.getLogger(__name__)
#: Users of a round trip, requests of a run.
_MAX_READ, _MAX_CROSSED = 256, 32


@dataclass(frozen=True)
class ServiceConfig:
    """
    Attributes:
        deadline_ms: of a request as a whole, from its arrival. Past it popularity answers.
        read_ms: of that, what reading the state may take; then its circuit breaker counts a failure.
        max_age_ms: older states count as stale, and are used all the same; None: none is.
        check_active_s: how often to ask which model is active.
    """

    bundle: Path
    redis_url: str
    prefix: str = "slipstream"
    deadline_ms: int = 100
    read_ms: int = 50
    max_age_ms: int | None = None
    check_active_s: float = 5.0

    def __post_init__(self) -> None:
        if not 1 <= self.read_ms <= self.deadline_ms:
            raise ConfigError(f"read_ms {self.read_ms}, deadline_ms {self.deadline_ms}: reading is a part of the whole")


class Popularity:
    """How often items were engaged with in training."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def score(self, candidates: NDArray[np.int64]) -> NDArray[np.float32]:
        """`(C,)`: log of one more than the count; 0 for an item that no training saw."""
        ids, counts = self._catalogue.ids, self._catalogue.counts
        if not len(ids):
            return np.zeros(len(candidates), np.float32)
        at = np.minimum(np.searchsorted(ids, candidates), len(ids) - 1)
        return np.where(ids[at] == candidates, np.log1p(counts[at]), 0).astype(np.float32)


class Service:
    """Used within one event loop.

    Attributes:
        registry: its metrics, and its reader's.
        trouble: why another version of this service should not follow yet; empty if nothing is wrong. An outage of Redis is no
            reason: there is an answer for that.
    """

    def __init__(self, config: ServiceConfig) -> None:
        """
        Raises:
            SlipstreamError: the bundle, or a setting, is no good.
        """
        self._config = config
        self.registry = registry = CollectorRegistry()
        bundle = load_bundle(config.bundle)
        self._reader = AsyncStateReader(
            config.redis_url,
            bundle,
            Names(config.prefix),
            deadline_ms=config.read_ms,
            metrics=ReaderMetrics(registry),
        )
        self._dcat = Dcat.of(bundle)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dcat")  # one caller at a time
        self._reads = Batcher(self._read, _MAX_READ)
        self._crossings = Batcher(self._cross, _MAX_CROSSED)
        self._popularity = Popularity(Catalogue.of(bundle))
        self._metrics = ServiceMetrics(registry)
        self._tasks: list[asyncio.Task[None]] = []
        self.trouble = ""
        self._metrics.ready.set_function(lambda: not self.trouble)

    def start(self) -> None:
        works = (self._reads.run(), self._crossings.run(), self._watch_active())
        self._tasks = [asyncio.create_task(work) for work in works]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.shutdown()
        await self._reader.close()

    async def rank(self, request: RankRequest, arrived_s: float) -> RankAnswer:
        """Always answers.

        Args:
            arrived_s: the loop's time when the request came.
        """
        candidates = np.array(request.candidates, np.int64)
        row: Row | None = None
        scores: NDArray[np.float32] | None = None
        fallback = ""
        try:
            async with asyncio.timeout_at(arrived_s + self._config.deadline_ms / 1000):
                row = await self._reads.ask(request.user)
                if row.usable:
                    scores = (await self._crossings.ask(Request(row, candidates))).score
                else:
                    fallback = row.status.value
        except TimeoutError:
            fallback = "deadline"
        except SlipstreamError as error:  # counted by the reader too, by its cause
            fallback = "unavailable"
            _log.debug("%s", error)
        except Exception:
            fallback = "error"
            _log.exception("a request of %d candidates cannot be scored", len(candidates))
        if scores is None:
            scores = self._popularity.score(candidates)
        by = "popularity" if fallback else "model"
        self._metrics.answered(by, fallback, asyncio.get_running_loop().time() - arrived_s)
        status, age_ms, length = ("unavailable", None, 0) if row is None else (row.status.value, row.age_ms, row.length)
        return RankAnswer(request.user, status, age_ms, length, by, fallback, scores.tolist())

    def _read(self, users: list[str]) -> Awaitable[Sequence[Row]]:
        return self._reader.read(users, self._config.max_age_ms)

    def _cross(self, requests: list[Request]) -> Awaitable[Sequence[Scores]]:
        """On a thread of its own: the loop goes on meanwhile."""
        return asyncio.get_running_loop().run_in_executor(self._thread, self._dcat.score, requests)

    async def _watch_active(self) -> None:
        """Keeps `trouble`: rankers read the model that is active (docs/operations.md, rolling over)."""
        while True:
            try:
                await self._reader.require_active()
                self.trouble = ""
            except ConfigError as error:
                if self.trouble != str(error):
                    _log.warning("%s", error)
                self.trouble = str(error)
            except SlipstreamError:
                pass  # asked again soon; requests fall back meanwhile
            await asyncio.sleep(self._config.check_active_s)
