"""Programs under measurement: started, waited for, and charged for their CPU time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from urllib.error import URLError
from urllib.request import urlopen

import msgspec
import psutil
from confluent_kafka import ConsumerGroupState, KafkaException

from edge.kafka import Admin
from schemas.errors import SlipstreamError, UnavailableError
from stream.lag import group_lag

_LOG_LINES_IN_ERROR = 20


class Program:
    """A process of its own, stopped when its context is left. `seconds` counts from its start."""

    def __init__(self, name: str, command: Sequence[str], log_dir: Path) -> None:
        log_dir.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.log = log_dir / f"{name}.log"
        self._started_s = time.monotonic()
        with self.log.open("ab") as log:
            self._process = psutil.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=log_dir
            )

    @classmethod
    def worker(cls, stage: str, options: Mapping[str, object], log_dir: Path) -> Program:
        """A worker of ours (bench.worker)."""
        return cls(stage, [sys.executable, "-m", "bench.worker", stage, msgspec.json.encode(options).decode()], log_dir)

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(psutil.NoSuchProcess):
            self._process.terminate()
        try:
            self._process.wait(10)
        except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
            self._process.kill()
            self._process.wait()

    @property
    def process(self) -> psutil.Process:
        return self._process

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started_s

    def cpu_s(self) -> float:
        """User and system time so far, all threads."""
        self.check()
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def rss_bytes(self) -> int:
        return int(self._process.memory_info().rss)

    def check(self) -> None:
        """Raises SlipstreamError with the end of its log if it has ended."""
        if (code := self._process.poll()) is not None:
            lines = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES_IN_ERROR:]
            raise SlipstreamError(
                f"{self.name} ended with exit code {code}; the end of {self.log}:\n" + "\n".join(lines)
            )


def cpu_s_by_name(programs: Sequence[Program]) -> dict[str, float]:
    """CPU seconds so far; programs of one name are summed."""
    sums: dict[str, float] = {}
    for program in programs:
        sums[program.name] = sums.get(program.name, 0.0) + program.cpu_s()
    return sums


def wait_until(what: str, done: Callable[[], bool], programs: Sequence[Program], timeout_s: float = 180) -> None:
    """Raises SlipstreamError if a program ends, UnavailableError when the time is over."""
    deadline = time.monotonic() + timeout_s
    while not done():
        for program in programs:
            program.check()
        if time.monotonic() > deadline:
            raise UnavailableError(f"after {timeout_s:.0f} s still not: {what}")
        time.sleep(0.05)


def owns_partitions(admin: Admin, group: str, topic: str, partitions: int) -> bool:
    """Whether the group's members have all partitions of the topic and nothing moves."""
    with suppress(KafkaException):
        found = admin.client.describe_consumer_groups([group])[group].result()
        owned = sum(tp.topic == topic for m in found.members for tp in m.assignment.topic_partitions)
        return bool(found.state == ConsumerGroupState.STABLE and owned == partitions)
    return False


def caught_up(admin: Admin, group: str, topic: str, markers: int = 0) -> bool:
    """Whether the group has committed all of the topic. `markers`: of transactions at the end of each partition, which nobody
    reads."""
    with suppress(UnavailableError):
        return all(lag <= markers for lag in group_lag(admin, group, [topic]).values())
    return False


def metric(port: int, name: str) -> float | None:
    """One metric, with its labels, of a worker on this machine; None while it does not answer or has none."""
    return metrics(port).get(name)


def metrics(port: int) -> dict[str, float]:
    """All metrics of a worker on this machine, by name with labels as Prometheus writes them; none while it does not answer."""
    with suppress(URLError, OSError), urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
        lines = answer.read().decode().splitlines()
        return {
            name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        }
    return {}
