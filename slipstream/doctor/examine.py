"""Runs checks side by side, each group in its time: what hangs or breaks hides nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import NamedTuple

from edge.masking import redacted
from slipstream.doctor.finding import Finding, Level, skipped


@dataclass(frozen=True)
class Probe:
    """Checks that build on each other, as on one connection.

    Attributes:
        checks: their names, in the order in which `findings` yields them.
        findings: makes them, one after another.
    """

    checks: tuple[str, ...]
    findings: Callable[[], Iterator[Finding]]


class Examined(NamedTuple):
    """
    Attributes:
        findings: one for each check, in the order of the probes.
        unfinished: a probe's thread still waits for an answer: end the process without it (edge.process.end_unfinished).
    """

    findings: list[Finding]
    unfinished: bool


def examine(probes: Sequence[Probe], deadline_s: float, secrets: Mapping[str, str]) -> Examined:
    """
    Args:
        deadline_s: what has not been found by then is a failure.
        secrets: options whose secret values no finding may show (edge.masking.redacted).
    """
    runs = [_Run(probe) for probe in probes]
    end_s = monotonic() + deadline_s
    for run in runs:
        run.thread.join(max(0.0, end_s - monotonic()))
    found = [finding for run in runs for finding in run.findings(deadline_s)]
    shown = [replace(f, found=redacted(f.found, secrets), advice=redacted(f.advice, secrets)) for f in found]
    return Examined(shown, any(run.thread.is_alive() for run in runs))


class _Run:
    """A probe in a thread of its own, which does not keep the process from ending."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._found: list[Finding] = []
        self._broken: Exception | None = None
        self.thread = threading.Thread(target=self._run, name=f"probe-{probe.checks[0]}", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            for finding in self._probe.findings():
                self._found.append(finding)
        except Exception as error:  # a bug of ours must not hide what the other checks find
            self._broken = error

    def findings(self, deadline_s: float) -> Iterator[Finding]:
        found = list(self._found)
        yield from found
        why, advice = f"no answer within {deadline_s:.0f} s", "`--timeout` gives it longer"
        if self._broken is not None:
            why, advice = f"unexpected: {type(self._broken).__name__}: {self._broken}", "a bug of ours: report it"
        names = {finding.check for finding in found}
        first, *others = [check for check in self._probe.checks if check not in names] or [""]
        if first:
            yield Finding(first, Level.FAIL, why, advice)
            yield from skipped(others, f"see {first}")
