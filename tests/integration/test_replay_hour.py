"""examples/replay-hour: its commands run as they stand there, beside a production with a damaged state."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Producer

from edge.kafka import KafkaConfig
from encoder.store_redis import RedisStateStore, connect
from schemas.bundle import ModelShape
from schemas.errors import UnavailableError
from schemas.event import encode_engagement, encode_forget
from schemas.names import Names
from slipstream.pipeline import Pipeline
from slipstream.simulate import Simulation
from slipstream.stack import Stack
from stream.topics import create_topics
from stream.whole_topic import read_whole
from tests.bundles import random_bundle
from tests.documents import ROOT, Shell, commands

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

EXAMPLE = ROOT / "examples" / "replay-hour"
SHAPE = ModelShape(layers=2, d_model=32, heads=2, kv_heads=1, context=24, keep=18, rows=512)
USERS, MALFORMED = 10, 3
START_MS = 1_700_000_000_000


class Production:
    """A raw topic, and the states that the stages would make of it."""

    def __init__(self, stack: Stack, names: Names, directory: Path) -> None:
        self.bundle = random_bundle(directory / "model", SHAPE)
        self.names, self.kafka = names, KafkaConfig(stack.kafka_bootstrap)
        create_topics(self.kafka, names, 3, 1)
        self.store = RedisStateStore(connect(stack.redis_url), names, self.bundle.layout)
        self._simulation = Simulation(self.bundle, self.store)
        self._producer = Producer({"bootstrap.servers": stack.kafka_bootstrap, "linger.ms": 0})
        self._rng = np.random.default_rng(5)
        self._at_ms = START_MS

    def events(self, count: int) -> list[bytes]:
        made = []
        for _ in range(count):
            self._at_ms += 1000
            late_ms = 5000 if self._rng.random() < 0.1 else 0
            user, item = int(self._rng.integers(USERS)), int(self._rng.integers(1, 200))
            made.append(encode_engagement(f"u{user}", item, "save", "home", self._at_ms - late_ms))
        return made

    def get(self, messages: list[bytes]) -> None:
        for message in messages:
            self._producer.produce(self.names.engagements, message, headers=[("from", b"web")])
            self._simulation.feed([message], time.time_ns() // 1_000_000)
        assert self._producer.flush(30) == 0


def now() -> str:
    """A moment that no message shares."""
    time.sleep(0.02)
    said = datetime.now(UTC).isoformat(timespec="milliseconds")
    time.sleep(0.02)
    return said


def test_the_hour_in_a_deployment_of_its_own(stack: Stack, prefix: str, tmp_path: Path) -> None:
    production = Production(stack, Names(prefix), tmp_path)
    production.get(production.events(60))
    lost = "u3"
    key = production.names.state_key(production.bundle.model_id, lost.encode())
    since = now()
    hour = [*production.events(80), *[b"{broken"] * MALFORMED, encode_forget("u1", START_MS + 200_000)]
    hour += [encode_engagement(lost, 7, "like", "search", START_MS + 150_000), hour[0]]
    with connect(stack.redis_url) as client:
        before = client.get(key)
        production.get(hour)
        client.set(key, before)  # as a fail-over that lost this hour's writes would leave it
    until = now()
    production.get(production.events(20))
    pipeline = Pipeline(production.kafka, stack.redis_url, production.names, production.bundle.model_id)
    with pytest.raises(UnavailableError, match=r"after 0 s stages are still behind, in messages: ingest \d+\."):
        pipeline.wait_until_quiet(0)  # what --wait does where no stage runs

    environment = {
        "SLIPSTREAM_KAFKA_BOOTSTRAP": stack.kafka_bootstrap,
        "SLIPSTREAM_REDIS_URL": stack.redis_url,
        "SLIPSTREAM_BUNDLE": str(production.bundle.directory),
        "SLIPSTREAM_PREFIX": f"{prefix}i",
        "PRODUCTION": prefix,
        "SINCE": since,
        "UNTIL": until,
    }
    export, *lines, compare = commands(EXAMPLE / "README.md")
    assert set(environment) - {"SLIPSTREAM_KAFKA_BOOTSTRAP", "SLIPSTREAM_REDIS_URL", "SLIPSTREAM_BUNDLE"} == {
        word.partition("=")[0] for word in export.split()[1:]
    }
    with Shell(EXAMPLE, environment, tmp_path / "background.log") as shell:
        said = "".join(shell.run(line) for line in lines)
        assert f"{len(hour)} messages of {prefix}.engagements" in said
        assert "states checked against fresh encodings, 0 wrong" in said
        assert "not_json" in said, said
        compared = shell.run(compare, exit_code=1).splitlines()
        assert compared[-1].endswith(" 1 differ"), compared
        assert compared[0].startswith(f"{lost}: events that it lacks: ["), compared

    records = [record for chunk in read_whole(production.kafka, f"{prefix}i.engagements") for record in chunk]
    assert sorted(record.value or b"" for record in records) == sorted(hour)
    assert {tuple(record.headers) for record in records} == {(("from", b"web"),)}
