"""Apache Kafka on this machine's Java: one process that is broker and KRaft controller."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from schemas.errors import ConfigError, UnavailableError
from slipstream.stack.maven import kafka_jars
from slipstream.stack.process import HOST, ProcessId, spawn
from slipstream.stack.runner import Notify, Remember
from slipstream.stack.state import How, Part

# One node; two cores and their memory are shared with everything else. docker-compose.yml says the same to the container.
SETTINGS: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "CLIENT",
    # A mistyped topic is an error, not an empty topic.
    "auto.create.topics.enable": "false",
    # One node cannot replicate; without these the first transaction and the first group would wait for ever.
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "min.insync.replicas": "1",
    # 50 partitions each by default: a second more at the first use.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    # Nobody else is going to join: do not wait 3 s for them.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "6000",
    # After a kill -9 the broker waits until its former self has timed out, 9 s by default: a restart takes 5 s, not 12.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "num.network.threads": "2",
    "num.io.threads": "4",
    # Taken from the heap at start, 128 MiB by default; 64 MiB index 2.5 M distinct keys in one pass of compaction.
    "log.cleaner.dedupe.buffer.size": str(64 << 20),
}
HEAP = ("-Xms256m", "-Xmx512m")
JVM = (
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:+ExitOnOutOfMemoryError",
    # The optimising compiler works for half a minute after a start and takes the cores from the stages: in a short demo on two
    # cores freshness was 48 ms (p50) and 128 ms (p90) with it, 23 and 71 without.
    "-XX:TieredStopAtLevel=1",
)
FORMAT_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class JavaKafka:
    """Kafka from Maven's jars.

    Attributes:
        maven: may be None if the jars are cached already.
        properties: the broker's, besides ours; listeners come after ours, everything else wins over ours.
        format_arguments: of the storage tool, such as `--add-scram`.
    """

    java: Path
    maven: Path | None
    pom: Path
    log4j: Path
    cache_dir: Path
    how: How = How.PROCESS
    listeners: tuple[str, ...] = ("client", "controller")
    properties: Mapping[str, str] = field(default_factory=dict)
    format_arguments: tuple[str, ...] = ()

    def fetch(self, notify: Notify) -> None:
        kafka_jars(self.pom, self.cache_dir, self.maven, notify)

    def launch(self, directory: Path, ports: Mapping[str, int], notify: Notify, remember: Remember) -> Part:
        jars = kafka_jars(self.pom, self.cache_dir, self.maven, notify)
        java = [str(self.java), *HEAP, *JVM]
        java += ["-Djava.awt.headless=true", f"-Dlog4j2.configurationFile={self.log4j}", "-cp", f"{jars}/*"]
        directory.mkdir(parents=True, exist_ok=True)
        properties = directory / "server.properties"
        properties.write_text(server_properties(directory, ports, self.properties))
        cluster_id = _format_once(java, directory, properties, self.format_arguments)
        log = directory / "broker.log"
        part = Part(
            how=self.how,
            address=f"{HOST}:{ports['client']}",
            ports=dict(ports),
            cluster_id=cluster_id,
            log=str(log),
            started_at_ms=int(time.time() * 1000),
        )

        def started(process: ProcessId) -> Part:
            return msgspec.structs.replace(part, process=process)

        return started(
            spawn(
                [*java, "kafka.Kafka", str(properties)], log, _environment(), lambda process: remember(started(process))
            )
        )


#: Lists to which others' entries are added, so that the listener that the launcher itself uses stays.
_ADDED_TO = ("listeners", "advertised.listeners", "listener.security.protocol.map")


def server_properties(directory: Path, ports: Mapping[str, int], more: Mapping[str, str] | None = None) -> str:
    if "," in str(directory):
        raise ConfigError(
            f"Kafka takes a comma for the end of a path: choose a data directory without one, not {directory}."
        )
    client, controller = f"CLIENT://{HOST}:{ports['client']}", f"CONTROLLER://{HOST}:{ports['controller']}"
    here = {
        "listeners": f"{client},{controller}",
        "advertised.listeners": client,
        # Static voters: the log of a dynamic quorum would remember the controller's port, which may be another one next time.
        "controller.quorum.voters": f"1@{HOST}:{ports['controller']}",
        "log.dirs": str(directory / "data"),
    }
    settings = {**SETTINGS, **here}
    for key, value in (more or {}).items():
        settings[key] = f"{settings[key]},{value}" if key in _ADDED_TO else value
    # JSON's escapes are those of a properties file: \\ and \uXXXX, in surrogate pairs.
    lines = [f"{key}={json.dumps(value)[1:-1]}" for key, value in settings.items()]
    return "\n".join(["# Written at each start by slipstream/stack/kafka.py", *lines, ""])


def _format_once(java: list[str], directory: Path, properties: Path, arguments: tuple[str, ...]) -> str:
    """Formats the storage if it never was; returns the cluster's id."""
    formatted = directory / "cluster-id"  # written when the format is through
    if formatted.exists():
        return formatted.read_text().strip()
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    if cluster_id.startswith("-"):  # the tool would take it for an option
        cluster_id = "A" + cluster_id[1:]
    # The first settings win, and this JVM lives for a second: compile less, collect simply.
    quick = [java[0], "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", *[a for a in java[1:] if not a.startswith("-XX")]]
    command = [*quick, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties), *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=_environment(),
            timeout=FORMAT_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"Kafka's storage tool did not finish within {FORMAT_TIMEOUT_S:.0f} s.") from error
    if done.returncode:
        said = "\n".join("  " + line for line in done.stdout.splitlines()[-12:])
        raise UnavailableError(f"Kafka's storage in {directory} could not be formatted:\n{said}")
    formatted.write_text(cluster_id + "\n")
    return cluster_id


def _environment() -> dict[str, str]:
    """Ours without the variables that would change the JVM behind our back or print to its output."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in {"CLASSPATH", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS"}
    }
