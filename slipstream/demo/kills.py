"""Kills stages in mid-stream, to show that nothing is lost."""

from __future__ import annotations

import time

from slipstream.processes import Stages

DOWN_S = 2.0


class Killer:
    """Kills stages with -9 at even distances over the replay, and starts each again two seconds later.

    Attributes:
        marks: (seconds since this object was made, what happened).
    """

    def __init__(self, stages: Stages, kills: tuple[str, ...], events: int) -> None:
        self._stages = stages
        self._began_s = time.monotonic()
        self._due = [(events * (i + 1) // (len(kills) + 1), stage) for i, stage in enumerate(kills)]
        self._down: list[tuple[float, str]] = []
        self.marks: list[tuple[float, str]] = []

    def at(self, events_sent: int) -> None:
        """Kill what is due after so many events, and start what was down for long enough."""
        now_s = time.monotonic()
        while self._down and now_s >= self._down[0][0]:
            self._stages.restart(self._down.pop(0)[1])
        down = {stage for _, stage in self._down}
        if self._due and events_sent >= self._due[0][0] and self._due[0][1] not in down:
            _, stage = self._due.pop(0)
            self._stages.kill(stage)
            self._down.append((now_s + DOWN_S, stage))
            self.marks.append((now_s - self._began_s, f"kill -9 {stage}"))

    def finish(self) -> None:
        """Start what is still down."""
        for _, stage in self._down:
            self._stages.restart(stage)
        self._down.clear()
