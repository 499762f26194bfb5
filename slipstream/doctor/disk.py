"""Whether the directories of the settings can be written, and have room."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from slipstream.doctor.finding import Finding, Level

FULL_BYTES, NEARLY_FULL_BYTES = 64 << 20, 1 << 30
_TRIED_BYTES = 4096


class DiskFacts(NamedTuple):
    """
    Attributes:
        path: what was looked at: the directory, or, as long as it is not made, the one that it will be in.
        error: why a file cannot be written there; "" if it can.
        full: that is for want of room, or quota.
    """

    path: Path
    error: str
    full: bool
    free_bytes: int


def disk_findings(directories: Mapping[str, Path]) -> Iterator[Finding]:
    """
    Args:
        directories: by the setting that names them, which is the name of the check too.
    """
    for setting, path in directories.items():
        yield judge_disk(setting, path, look(path))


def look(directory: Path) -> DiskFacts:
    path = directory.absolute()
    while not path.exists():
        path = path.parent
    error, full = "", False
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(_TRIED_BYTES))
            file.flush()
    except OSError as failed:
        error, full = failed.strerror or str(failed), failed.errno in (errno.ENOSPC, errno.EDQUOT)
    return DiskFacts(path, error, full, shutil.disk_usage(path).free)


def judge_disk(setting: str, directory: Path, facts: DiskFacts) -> Finding:
    details = {"path": str(facts.path), "free_bytes": facts.free_bytes}
    room = f"{facts.free_bytes / 1e9:,.1f} GB free"
    if facts.full or (not facts.error and facts.free_bytes < FULL_BYTES):
        found = f"the disk of {facts.path} is full ({facts.free_bytes / 1e6:,.0f} MB free)"
        return Finding(setting, Level.FAIL, found, f"make room there, or name another directory (`{setting}`)", details)
    if facts.error:
        advice = f"let this user write there, or name another directory (`{setting}`)"
        return Finding(setting, Level.FAIL, f"{facts.path} cannot be written: {facts.error}", advice, details)
    if facts.free_bytes < NEARLY_FULL_BYTES:
        return Finding(setting, Level.WARN, f"{facts.path}: {room}", "make room there", details)
    made = "" if facts.path == directory.absolute() else f"{directory} will be made; "
    return Finding(setting, Level.OK, f"{made}{facts.path} can be written, {room}", details=details)
