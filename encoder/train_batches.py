"""The batches of a training's steps, and where what is random in them comes from."""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray

from encoder.features import item_rows
from encoder.objective import Batch, Batches
from encoder.train_config import TrainConfig
from encoder.train_data import Part, TrainingData
from encoder.windows import cut, training_spans

_AHEAD = 4
#: What a stream of random numbers is for.
_SPANS, _BATCH, _DROPOUT = range(3)


class Drawn(NamedTuple):
    """A step's batch, and how many events it foresees."""

    batch: Batch
    events: int


class Draws:
    """What each step of a process gets: a function of the seed, the process and the step's number alone."""

    def __init__(
        self,
        fabric: Fabric,
        data: TrainingData,
        part: Part,
        seeds: tuple[int, ...],
        positive: NDArray[np.bool_],
        config: TrainConfig,
    ) -> None:
        """
        Args:
            part: of the data, what is trained on.
        """
        self._fabric, self._data, self._part, self._positive, self._config = fabric, data, part, positive, config
        known = part.counts > 0
        self._place = np.cumsum(known) - 1  # (m,) of an item among those of the part
        rows = item_rows(data.histories.item_ids[known], seeds, config.shape.rows)
        self._batches = Batches(rows, part.counts[known], config)

    def dropout_seed(self, step: int) -> int:
        return int(self._random(_DROPOUT, step).integers(1 << 62))

    def batches(self, step: int) -> Iterator[Drawn]:
        """Of the steps from this one on, for ever; on a GPU's behalf made ahead of it.

        Raises:
            LogError: no user has two events.
        """
        drawn = self._draw(step)
        return _ahead(drawn) if self._fabric.device.type == "cuda" else drawn

    def _draw(self, first: int) -> Iterator[Drawn]:
        """All processes know the same order of windows and take turns."""
        config, data = self._config, self._data.histories
        rank, world = self._fabric.global_rank, self._fabric.world_size
        order = np.random.default_rng([config.seed, _SPANS])
        spans = training_spans(data, config.shape.context, config.batch_tokens, order, self._part.ends)
        for step, chosen in enumerate(itertools.islice(spans, rank + first * world, None, world), first):
            windows = cut(data, chosen, self._positive)
            windows = dataclasses.replace(windows, items=np.where(windows.real, self._place[windows.items], 0))
            batch = self._batches.make(windows, self._random(_BATCH, step))
            yield Drawn(batch, int(windows.real[:, 1:].sum()))

    def _random(self, what: int, step: int) -> np.random.Generator:
        return np.random.default_rng([self._config.seed, what, self._fabric.global_rank, step])


def _ahead(drawn: Iterator[Drawn]) -> Iterator[Drawn]:
    """The same batches, made while the GPU works off earlier ones, in memory that it can copy from by itself."""

    def make() -> Drawn:
        made = next(drawn)
        return Drawn(Batch(*(tensor.pin_memory() for tensor in made.batch)), made.events)

    with ThreadPoolExecutor(1, "training-batches") as pool:
        waiting = deque(pool.submit(make) for _ in range(_AHEAD))
        while True:
            yield waiting.popleft().result()
            waiting.append(pool.submit(make))
