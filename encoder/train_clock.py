"""How far a training is: time and requests to stop, agreed upon by all of its processes without asking each other every step."""

from __future__ import annotations

import time
from collections.abc import Callable

from lightning_fabric import Fabric

#: Steps between two agreements of several processes.
_AGREE_EVERY = 10


class Clock:
    """Seconds that the training has taken, and whether it was asked to stop: the same answers in every process at a step.

    Alone, it looks at the clock each time. Several processes take over what the first one sees every few steps, and reckon in
    between by the pace so far.
    """

    def __init__(self, fabric: Fabric, spent_s: float, started_s: float, stop: Callable[[], bool]) -> None:
        """
        Args:
            spent_s: by earlier runs of the same training.
            started_s: of this run, by time.monotonic.
            stop: asked in the first process only.
        """
        self._fabric, self._stop = fabric, stop
        self._zero_s = started_s - spent_s
        self._agreed_step: int | None = None
        self._agreed_s = self._per_step_s = 0.0
        self._stopped = False

    def at(self, step: int) -> tuple[float, bool]:
        """(seconds, asked to stop) before this step. Steps ascend."""
        if self._fabric.world_size == 1:
            return time.monotonic() - self._zero_s, self._stop()
        if self._agreed_step is None or step >= self._agreed_step + _AGREE_EVERY:
            self.agree(step)
        assert self._agreed_step is not None
        return self._agreed_s + (step - self._agreed_step) * self._per_step_s, self._stopped

    def agree(self, step: int) -> None:
        """Take over what the first process sees."""
        seen = (time.monotonic() - self._zero_s, self._fabric.is_global_zero and self._stop())
        seconds, self._stopped = self._fabric.broadcast(seen)
        if self._agreed_step is not None and step > self._agreed_step:
            self._per_step_s = max(seconds - self._agreed_s, 0.0) / (step - self._agreed_step)
        self._agreed_step, self._agreed_s = step, seconds
