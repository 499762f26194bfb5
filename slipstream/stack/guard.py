"""A stack that lives as long as a `with` block, even if its process is killed with -9.

A small process of its own waits on a pipe whose other end the caller holds; when that end closes, however the caller ended, it
stops what the caller started.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from slipstream.stack import launcher
from slipstream.stack.choose import CHECKOUT, Machine
from slipstream.stack.runner import Notify
from slipstream.stack.state import PARTS, PartName, Stack


@contextlib.contextmanager
def running(
    data_dir: Path,
    kafka_bootstrap: str | None = None,
    redis_url: str | None = None,
    *,
    kafka_options: Mapping[str, str] | None = None,
    ports: Mapping[PartName, int] | None = None,
    notify: Notify = launcher.quiet,
    machine: Machine | None = None,
    timeout_s: float = launcher.START_TIMEOUT_S,
) -> Iterator[Stack]:
    """`up`, and at the end `down` for what this call started; what ran in `data_dir` before goes on. Errors as of `up`."""
    before = launcher.status(data_dir, machine=machine)
    keep = [part.name for part in (before.kafka, before.redis) if part.running]
    with _guard(data_dir, keep):
        try:
            yield launcher.up(
                data_dir,
                kafka_bootstrap,
                redis_url,
                kafka_options=kafka_options,
                ports=ports,
                notify=notify,
                machine=machine,
                timeout_s=timeout_s,
            )
        finally:
            stop_except(data_dir, keep, machine)


@contextlib.contextmanager
def _guard(data_dir: Path, keep: list[PartName]) -> Iterator[None]:
    command = [
        sys.executable,
        "-m",
        "slipstream.stack",
        "guard",
        "--data-dir",
        str(data_dir.resolve()),
        "--keep",
        *keep,
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=CHECKOUT, start_new_session=True
    ):
        yield  # leaving closes the pipe and waits for the guard, which finds nothing left to stop


def wait_and_stop(data_dir: Path, keep: list[PartName]) -> None:
    """The guard's own work."""
    sys.stdin.buffer.read()
    stop_except(data_dir, keep, None)


def stop_except(data_dir: Path, keep: list[PartName], machine: Machine | None) -> None:
    for name in PARTS:
        if name not in keep:
            launcher.stop_part(data_dir, name, machine=machine)
