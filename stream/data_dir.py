"""A directory for one worker alone."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import ConfigError


@contextmanager
def private_directory(configured: Path | None) -> Iterator[Path]:
    """A directory that no other worker uses.

    Raises:
        ConfigError: another worker does, or it cannot be made.
    """
    if configured is None:
        directory = Path(tempfile.mkdtemp(prefix="slipstream-sequence-"))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        return
    try:
        configured.mkdir(parents=True, exist_ok=True)
        lock = (configured / "lock").open("w")
    except OSError as error:
        raise ConfigError(f"data directory {configured}: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"data directory {configured} belongs to a running worker: give each its own") from None
        yield configured
