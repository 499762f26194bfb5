"""How many threads a torch loop should use on a machine that is shared.

Torch's threads wait for each other many times in a step. Where another process keeps one core busy, two threads were measured ten
times slower than one; on an idle machine they are 1.7 times faster. So a loop now and then tries both.
"""

from __future__ import annotations

import os
import time

import torch

_PROBE_EVERY = 150  # steps
_PROBE_STEPS = 4  # for each number of threads


class Threads:
    """Sets torch's number of threads from step to step.

    Args:
        fixed: use this many; None to measure.
    """

    def __init__(self, fixed: int | None) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._choices = [fixed] if fixed else sorted({1, cores}, reverse=True)
        self._fastest = [float("inf")] * len(self._choices)
        self._before = torch.get_num_threads()
        self._step = 0
        self._started_s = 0.0
        self.now = self._choices[0]

    def step_begins(self) -> None:
        """Call before each step."""
        at = self._step % _PROBE_EVERY
        if at < _PROBE_STEPS * len(self._choices):
            self._use(self._choices[at // _PROBE_STEPS])
        elif at == _PROBE_STEPS * len(self._choices):
            self._use(self._choices[self._fastest.index(min(self._fastest))])
        self._started_s = time.perf_counter()

    def step_ends(self) -> None:
        """Call after each step."""
        at = self._step % _PROBE_EVERY
        if at == 0:
            self._fastest = [float("inf")] * len(self._choices)
        if at < _PROBE_STEPS * len(self._choices):
            choice = at // _PROBE_STEPS
            self._fastest[choice] = min(self._fastest[choice], time.perf_counter() - self._started_s)
        self._step += 1

    def restore(self) -> None:
        """Leave torch as it was found."""
        torch.set_num_threads(self._before)

    def _use(self, threads: int) -> None:
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)
        self.now = threads
