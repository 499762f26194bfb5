"""The jars of Apache Kafka: copied by Maven once, kept in a cache that all data directories and clones share.

A cached copy is whole or absent: it is filled under another name, gets a list of its files, and is renamed into place. One that
lost a file since is made again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec

from schemas.errors import ConfigError, PrerequisiteError
from slipstream.stack.state import locked

CONTENTS = "contents.json"  # file name -> bytes
DOWNLOAD_TIMEOUT_S = 900.0


def cache_entry(pom: Path, cache_dir: Path) -> Path:
    return cache_dir / f"kafka-{hashlib.sha256(pom.read_bytes()).hexdigest()[:16]}"


def is_whole(entry: Path) -> bool:
    try:
        contents = msgspec.json.decode((entry / CONTENTS).read_bytes(), type=dict[str, int])
        return bool(contents) and all((entry / name).stat().st_size == size for name, size in contents.items())
    except (OSError, msgspec.MsgspecError):
        return False


def kafka_jars(pom: Path, cache_dir: Path, maven: Path | None, notify: Callable[[str], None]) -> Path:
    """The directory of jars that `pom` asks for; fetched if the cache has none. Safe to call from several processes at once.

    Raises PrerequisiteError if they must be fetched and Maven is missing or fails.
    """
    entry = cache_entry(pom, cache_dir)
    if is_whole(entry):
        return entry
    if maven is None:
        raise PrerequisiteError(
            "Apache Kafka is not in the cache yet and Maven (mvn), which fetches it, is not installed."
        )
    try:
        return _fetch(pom, entry, maven, notify)
    except OSError as error:
        raise ConfigError(
            f"The cache {cache_dir} cannot be written: {error}. Name another one in XDG_CACHE_HOME."
        ) from error


def _fetch(pom: Path, entry: Path, maven: Path, notify: Callable[[str], None]) -> Path:
    cache_dir = entry.parent
    with locked(cache_dir / f"{entry.name}.lock"):
        if is_whole(entry):  # another process was faster
            return entry
        notify(f"fetching Apache Kafka with Maven into {entry} (43 MB, once)")
        for leftover in (entry, *cache_dir.glob(f"{entry.name}.part-*")):
            shutil.rmtree(leftover, ignore_errors=True)
        part = cache_dir / f"{entry.name}.part-{os.getpid()}"
        try:
            _copy_dependencies(maven, pom, part)
            sizes = {file.name: file.stat().st_size for file in sorted(part.glob("*.jar"))}
            if not any(name.startswith("kafka_") for name in sizes):
                raise PrerequisiteError(f"Maven copied no Kafka for {pom}: it fetched {sorted(sizes) or 'nothing'}.")
            (part / CONTENTS).write_bytes(msgspec.json.encode(sizes))
            part.rename(entry)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return entry


def _copy_dependencies(maven: Path, pom: Path, target: Path) -> None:
    command = [str(maven), "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={target}"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=DOWNLOAD_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise PrerequisiteError(
            f"Maven did not finish within {DOWNLOAD_TIMEOUT_S:.0f} s: {' '.join(command)}"
        ) from error
    if done.returncode:
        said = "\n".join("  " + line for line in done.stdout.splitlines()[:12])
        raise PrerequisiteError(
            f"Maven could not fetch Apache Kafka (exit status {done.returncode}): {' '.join(command)}\n{said}\n"
            "Check the network, or name a mirror of Maven Central in ~/.m2/settings.xml; or give the address of a running "
            "Kafka in SLIPSTREAM_KAFKA_BOOTSTRAP."
        )
