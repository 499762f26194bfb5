"""The stages' workers as processes: started again when they end, killed, paused, watched for memory and for why they ended.

All calls come from one thread.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil

from bench.chaos.gate import Gate
from slipstream.stack.process import free_port

#: Before a worker that ended by itself is started again, as a supervisor would.
_BACK_OFF_S = 1.0
#: SIGTERM lets a worker finish what is under way.
STOP_TIMEOUT_S = 60.0
#: A worker that has just started grows for other reasons than a broker that is away.
_GROWN_UP_S = 8.0
_MIB = 1 << 20
_GOT_PARTITIONS = re.compile(r"partitions \[.*\]: g(?:ot|ave up) |reading partitions \[")


class Exit(NamedTuple):
    """A worker that ended.

    Attributes:
        at_s: monotonic.
        code: its exit code, minus the signal that ended it.
        asked: "kill" or "stop" if we did it, else empty.
        worked: it had been given partitions.
        said: the last line of its log.
    """

    worker: str
    stage: str
    at_s: float
    code: int
    asked: str
    worked: bool
    said: str


@dataclass
class Slot:
    """A place for a worker. Who is there changes with every start; `process` is None while nobody is. `spared`: nothing is done
    to it, and it serves metrics."""

    stage: str
    number: int
    process: subprocess.Popen[bytes] | None = None
    log: Path = Path()
    started_s: float = 0.0
    starts: int = 0
    asked: str = ""
    paused: bool = False
    wanted: bool = True
    spared: bool = False
    metrics_port: int = 0
    start_at_s: float = 0.0  # while nobody is there
    rss_mb: float = 0.0
    peak_mb: dict[str, float] = field(default_factory=dict)  # by worker

    @property
    def name(self) -> str:
        return f"{self.stage}-{self.number}"

    @property
    def worker(self) -> str:
        """The process's own name: the slot's, and the how many-th start it is."""
        return f"{self.name}.{self.starts:02d}"


class Fleet:
    """The workers of all stages. `supervise` keeps them running while it runs.

    Attributes:
        exits: of all workers that ended, by time.
        growth_mb: during absences of the broker (`broker_away`), by worker: how much it grew.
    """

    def __init__(self, environment: Mapping[str, str], log_dir: Path, notify: Callable[[str], None]) -> None:
        self._environment = environment
        self._log_dir = log_dir
        self._notify = notify
        self._away: dict[str, float] = {}  # worker -> its RSS when the broker went
        self.slots: list[Slot] = []
        self.gates: dict[str, Gate] = {}
        self.exits: list[Exit] = []
        self.growth_mb: dict[str, float] = {}
        log_dir.mkdir(parents=True, exist_ok=True)

    def add(self, stage: str, spared: bool = False) -> Slot:
        """A place more, with a worker."""
        self.gates.setdefault(stage, Gate())
        slot = Slot(stage, len(self.of(stage)), spared=spared, metrics_port=free_port() if spared else 0)
        self.slots.append(slot)
        self.start(slot)
        return slot

    def of(self, stage: str) -> list[Slot]:
        return [slot for slot in self.slots if slot.stage == stage]

    def pick(self, stage: str, pick: int) -> Slot | None:
        """One of the stage's workers that have been given partitions, are wanted, and are neither paused nor spared."""
        there = [slot for slot in self.of(stage) if slot.process and slot.wanted and not slot.paused and not slot.asked]
        at_work = [slot for slot in there if not slot.spared and has_partitions(slot.log)]
        return at_work[pick % len(at_work)] if at_work else None

    def start(self, slot: Slot) -> None:
        slot.starts += 1
        slot.asked, slot.wanted, slot.paused = "", True, False
        slot.log = self._log_dir / f"{slot.worker}.log"
        with slot.log.open("wb") as log:
            slot.process = subprocess.Popen(
                [sys.executable, "-m", "slipstream", slot.stage],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self._environment, **self._of_its_own(slot)},
                start_new_session=True,  # Ctrl-C reaches only us
            )
        slot.started_s = time.monotonic()

    def _of_its_own(self, slot: Slot) -> dict[str, str]:
        """A directory of the slot's own: its next worker finds there what the last one left, as on a disk that is kept."""
        own = {"SLIPSTREAM_METRICS_PORT": str(slot.metrics_port)}
        if slot.stage == "sequence":
            own["SLIPSTREAM_SEQUENCE_DIR"] = str(self._log_dir.parent / "tables" / slot.name)
        return own

    def kill(self, slot: Slot, start_after_s: float) -> None:
        """kill -9; the supervisor starts it again."""
        assert slot.process is not None
        slot.asked = "kill"
        slot.process.kill()
        slot.process.wait()
        self._ended(slot, slot.process, start_after_s)

    def pause(self, slot: Slot) -> subprocess.Popen[bytes]:
        """SIGSTOP; the process, to be continued by `resume`."""
        assert slot.process is not None
        slot.paused = True
        slot.process.send_signal(signal.SIGSTOP)
        return slot.process

    def resume(self, slot: Slot, process: subprocess.Popen[bytes]) -> None:
        if slot.process is process:
            slot.paused = False
            process.send_signal(signal.SIGCONT)

    async def stop(self, slot: Slot) -> None:
        """SIGTERM, and wait. One that does not end in time is killed, which its exit then tells."""
        slot.wanted = False
        process = slot.process
        if process is None:
            return
        slot.asked = "stop"
        process.terminate()
        if not await self.ended(slot, process, STOP_TIMEOUT_S) and slot.process is process:
            process.kill()
            process.wait()
            self._ended(slot, process, 0.0)

    async def ended(self, slot: Slot, process: subprocess.Popen[bytes], timeout_s: float) -> bool:
        """Whether the process ended in time."""
        deadline = time.monotonic() + timeout_s
        while slot.process is process and time.monotonic() < deadline:
            self._look(slot)
            await asyncio.sleep(0.05)
        return slot.process is not process

    async def supervise(self) -> None:
        """Start again what ended, look at memory; until cancelled."""
        while True:
            for slot in self.slots:
                self._look(slot)
                if slot.process is None and slot.wanted and time.monotonic() >= slot.start_at_s:
                    self.start(slot)
            await asyncio.sleep(0.1)

    def all_have_partitions(self) -> bool:
        return all(slot.process and has_partitions(slot.log) for slot in self.slots if slot.wanted)

    def all_run(self) -> bool:
        return all(slot.process is not None and not slot.paused for slot in self.slots if slot.wanted)

    def end_all(self) -> None:
        """Leave nothing behind."""
        for slot in self.slots:
            slot.wanted = False
            if slot.process is not None:
                slot.process.kill()
                slot.process.wait()
                slot.process = None

    # Memory
    def broker_goes(self) -> None:
        now = time.monotonic()
        self._away = {
            slot.worker: slot.rss_mb for slot in self.slots if slot.process and now - slot.started_s > _GROWN_UP_S
        }

    def broker_is_back(self) -> None:
        self._away = {}

    def memory_mb(self) -> dict[str, dict[str, float]]:
        """By stage: the most that a worker of it had, and the most that one of those had that were there at the end."""
        peaks: dict[str, float] = {}
        final: dict[str, float] = {}
        for slot in self.slots:
            peaks[slot.stage] = max(peaks.get(slot.stage, 0.0), *slot.peak_mb.values(), 0.0)
            if slot.process is not None:
                final[slot.stage] = max(final.get(slot.stage, 0.0), slot.rss_mb)
        return {stage: {"peak": round(peaks[stage], 1), "final": round(final.get(stage, 0.0), 1)} for stage in peaks}

    # What happened
    def logs(self) -> list[Path]:
        return sorted(self._log_dir.glob("*.log"))

    def rebalances(self) -> int:
        """How often a worker got or gave up partitions, from their logs."""
        return sum(len(_GOT_PARTITIONS.findall(log.read_text(errors="replace"))) for log in self.logs())

    def said(self, text: str) -> int:
        """How often the workers logged it."""
        return sum(log.read_text(errors="replace").count(text) for log in self.logs())

    def exit_codes(self) -> dict[str, int]:
        return dict(sorted(Counter(f"{end.stage} {end.code}" for end in self.exits).items()))

    def _look(self, slot: Slot) -> None:
        process = slot.process
        if process is None:
            return
        if process.poll() is not None:
            self._ended(slot, process, _BACK_OFF_S)
            return
        try:
            slot.rss_mb = psutil.Process(process.pid).memory_info().rss / _MIB
        except psutil.NoSuchProcess:
            return
        slot.peak_mb[slot.worker] = max(slot.peak_mb.get(slot.worker, 0.0), slot.rss_mb)
        if (before := self._away.get(slot.worker)) is not None:
            self.growth_mb[slot.worker] = max(self.growth_mb.get(slot.worker, 0.0), slot.rss_mb - before)

    def _ended(self, slot: Slot, process: subprocess.Popen[bytes], start_after_s: float) -> None:
        now = time.monotonic()
        code = process.returncode
        end = Exit(slot.worker, slot.stage, now, code, slot.asked, has_partitions(slot.log), _last_line(slot.log))
        self.exits.append(end)
        if not slot.asked:
            self._notify(f"{slot.worker} ended with exit code {code}: {end.said[:150]}")
        slot.process, slot.paused, slot.asked = None, False, ""
        slot.start_at_s = now + start_after_s


def environment_of_workers(settings: Mapping[str, str], config: Path) -> dict[str, str]:
    """This process's environment with these settings instead of the ones that it has: what a user's shell or a settings file
    says about another deployment must not reach the workers."""
    config.write_text("# Empty on purpose: the workers' settings are in their environment.\n")
    clean = {name: value for name, value in os.environ.items() if not name.upper().startswith("SLIPSTREAM_")}
    given = {f"SLIPSTREAM_{name.upper()}": value for name, value in settings.items()}
    return {**clean, **given, "SLIPSTREAM_CONFIG": str(config)}


def has_partitions(log: Path) -> bool:
    return _GOT_PARTITIONS.search(log.read_text(errors="replace")) is not None


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
