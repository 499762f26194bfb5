"""examples/producers: each service on a real Kafka, with ingest and the sequence stage behind it.

A language whose toolchain is not installed, or whose packages cannot be fetched, is skipped with a message.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from edge.kafka import KafkaConfig
from schemas.event import hash_item_id
from schemas.names import Names
from schemas.sequence import Records, decode_sequence
from schemas.vocabulary import Vocabulary
from slipstream.pipeline import Pipeline
from slipstream.processes import Stages
from slipstream.stack import Stack
from slipstream.stack.process import free_port
from stream.oracle import read_sequences
from stream.topics import create_topics
from tests.documents import ROOT
from tests.integration.encoding import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

EXAMPLES = ROOT / "examples" / "producers"
VOCABULARY = Vocabulary()
Content = tuple[int, str, str]
"""Item, action and surface of an event."""


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed, so this example cannot run: install it to test examples/producers")
    return found


def fetch(what: str, directory: Path, *command: str) -> None:
    """Packages, from the registry that this machine's client is set up for."""
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"{what} could not be fetched: {done.stderr[-500:]}")


def python(directory: Path) -> list[str]:
    return [sys.executable, str(EXAMPLES / "python" / "service.py")]


def node(directory: Path) -> list[str]:
    runs, npm = program("node"), program("npm")
    here = directory / "node"
    shutil.copytree(EXAMPLES / "node", here, ignore=shutil.ignore_patterns("node_modules", "package-lock.json"))
    options = ("--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
    fetch("npm packages", here, npm, "install", *options)
    return [runs, str(here / "service.js")]


def go(directory: Path) -> list[str]:
    tool, source = program("go"), EXAMPLES / "go"
    fetch("Go modules", source, tool, "mod", "download")
    built = directory / "producer"
    done = subprocess.run([tool, "build", "-o", str(built), "."], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [str(built)]


class Service:
    """One of the three, as people run it."""

    def __init__(self, command: list[str], kafka_bootstrap: str, topic: str, log: Path, timeout_ms: int) -> None:
        self.port, self.log = free_port(), log
        environment = {
            "KAFKA_BOOTSTRAP": kafka_bootstrap,
            "TOPIC": topic,
            "PORT": str(self.port),
            "DELIVERY_TIMEOUT_MS": str(timeout_ms),
        }
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=output, stderr=output)

    def __enter__(self) -> Service:
        wait_until("it serves", self._serves)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def _serves(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/health", timeout=30) as answer:
                return bool(answer.status == 200)
        except URLError:
            return False

    def post(self, body: bytes) -> tuple[int, str]:
        """Status and answer; 0 if nobody listened any more."""
        try:
            with urlopen(Request(f"http://127.0.0.1:{self.port}/engagements", body), timeout=60) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()
        except (URLError, OSError) as error:
            return 0, str(error)

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@dataclass
class Sent:
    """What a service acknowledged: user -> events, without their time.

    Attributes:
        unknown: those without an answer, which may be in Kafka or not.
        first_ms: the machine's clock before the first.
    """

    first_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    events: dict[str, Counter[Content]] = field(default_factory=dict)
    unknown: Counter[Content] = field(default_factory=Counter)

    def post(self, service: Service, event: dict[str, Any]) -> int:
        status, _ = service.post(json.dumps(event).encode())
        item = event["item_id"]
        content = hash_item_id(item) if isinstance(item, str) else item, event["action"], event["surface"]
        if status == 202:
            self.events.setdefault(event["user_id"], Counter())[content] += 1
        elif status == 0:
            self.unknown[content] += 1
        return status


def events(language: str, count: int) -> list[dict[str, Any]]:
    actions, surfaces = VOCABULARY.actions[1:], VOCABULARY.surfaces[1:]
    return [
        {
            "user_id": f"{language}-ü-{i % 7}",
            "item_id": i if i % 3 == 0 else f"pin-{i} ↗" if i % 3 == 1 else f"{i}",
            "action": actions[i % len(actions)],
            "surface": surfaces[i % len(surfaces)],
        }
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def deployment(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Raw events to sequences; there is no model in this."""
    directory = tmp_path_factory.mktemp("producers")
    names = Names(f"p{directory.name}")
    pipeline = Pipeline(KafkaConfig(stack.kafka_bootstrap), stack.redis_url, names, "0" * 16)
    create_topics(pipeline.kafka, names, 3, 1)
    environment = pipeline.environment(directory)
    del environment["SLIPSTREAM_BUNDLE"]
    with Stages([], directory / "logs", environment) as stages:
        for stage in ("ingest", "sequence"):
            stages.start(stage, stage)
        yield pipeline
        stages.check()


def stored(pipeline: Pipeline, users: list[str]) -> dict[str, Records]:
    found = read_sequences(pipeline.kafka, pipeline.names).sequences
    return {user: decode_sequence(found[user.encode()].value).records for user in users if user.encode() in found}


@pytest.mark.parametrize("language", ["python", "node", "go"])
def test_what_is_acknowledged_is_in_its_users_sequence(language: str, deployment: Pipeline, tmp_path: Path) -> None:
    command = {"python": python, "node": node, "go": go}[language](tmp_path)
    sent, bootstrap = Sent(), deployment.kafka.bootstrap_servers
    with (
        Service(command, bootstrap, deployment.names.engagements, tmp_path / "log", 30_000) as service,
        ThreadPoolExecutor(8) as clients,
    ):
        first, last = events(language, 120)[:80], events(language, 120)[80:]
        assert set(clients.map(lambda event: sent.post(service, event), first)) == {202}

        good = {"user_id": "nobody", "item_id": 1, "action": "save", "surface": "home"}
        for wrong, says in (
            ({"user_id": ""}, "user_id"),
            ({"item_id": 1.5}, "item_id"),
            ({"item_id": -1}, "item_id"),
            ({"item_id": 1 << 63}, "item_id"),
            ({"action": None}, "action"),
        ):
            status, answer = service.post(json.dumps({**good, **wrong}).encode())
            assert (status, says in answer) == (400, True), answer
        for body, status in ((b"{", 400), (b"", 400), (b" " * 5000 + b"{}", 413)):
            assert service.post(body)[0] == status, body

        # Told to end while events come: each is acknowledged and kept, or was not taken.
        under_way = [clients.submit(sent.post, service, event) for event in last]
        under_way[0].result()
        assert service.end() in (0, -signal.SIGTERM), service.log.read_text()
        assert {of.result() for of in under_way} <= {202, 0}
    assert "Traceback" not in service.log.read_text()
    last_ms = time.time_ns() // 1_000_000

    def arrived() -> bool:
        records = stored(deployment, list(sent.events))
        return sum(map(len, records.values())) >= sum(of.total() for of in sent.events.values())

    wait_until("ingest and the sequence stage have worked it off", arrived)
    for user, records in stored(deployment, list(sent.events)).items():
        names = [
            (item, VOCABULARY.actions[action], VOCABULARY.surfaces[surface])
            for _, item, action, surface in records.tolist()
        ]
        assert sent.events[user] <= Counter(names) <= sent.events[user] + sent.unknown
        assert sent.first_ms <= records["timestamp_ms"].min() <= records["timestamp_ms"].max() <= last_ms
    assert deployment.dead_letters() == 0

    with Service(command, bootstrap, f"{deployment.names.prefix}.nowhere", tmp_path / "log", 1000) as service:
        status, answer = service.post(json.dumps(good).encode())
        assert (status, "try again" in answer) == (503, True), answer
        assert service.end() in (0, -signal.SIGTERM)
    assert "not delivered" in service.log.read_text()
