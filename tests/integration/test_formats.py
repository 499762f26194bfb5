"""All wire formats on one topic, through the real stages to the oracle; and a schema registry that is away.

Run: pytest tests/integration/test_formats.py
"""

from __future__ import annotations

import base64
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import fastavro
import pytest

from schemas.errors import UnavailableError
from schemas.event import (
    MAX_ITEM_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_TIMESTAMP_MS,
    MAX_USER_BYTES,
    Event,
    Forget,
    Parser,
    ParserConfig,
    encode_engagement,
    encode_forget,
    hash_item_id,
)
from schemas.formats import FORMATS, MAX_DEPTH
from slipstream.settings import Settings
from stream.ingest import IngestConfig, run_ingest
from stream.oracle import compare, read_raw, read_sequences, rebuild
from stream.registry import VALUE_HEADER, RegistryConfig, framed_oracle, framed_reader
from tests.integration.streaming import ROOT, Deployment, wait_until
from tests.schema_registry import SchemaRegistry
from tests.stream.test_registry import AVSC, pb2  # noqa: F401

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

USERS, EVENTS = 20, 1200
PARSED_AVSC = fastavro.parse_schema(json.loads(AVSC))


@pytest.fixture
def deployment(kafka_bootstrap: str, prefix: str, tmp_path: Path) -> Deployment:
    return Deployment(kafka_bootstrap, prefix, tmp_path)


@pytest.fixture
def registry() -> Iterator[SchemaRegistry]:
    with SchemaRegistry() as registry:
        yield registry


class Ingest:
    """`slipstream ingest`, told everything by its environment."""

    def __init__(self, deployment: Deployment, registry: SchemaRegistry, log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "slipstream", "ingest"],
                cwd=ROOT,
                env={
                    **os.environ,
                    "SLIPSTREAM_KAFKA_BOOTSTRAP": deployment.kafka.bootstrap_servers,
                    "SLIPSTREAM_PREFIX": deployment.names.prefix,
                    "SLIPSTREAM_FORMATS": json.dumps(FORMATS),
                    "SLIPSTREAM_SCHEMA_REGISTRY_URL": registry.url,
                    "SLIPSTREAM_SCHEMA_REGISTRY_OPTIONS": '{"basic.auth.user.info": "me:secret"}',
                },
                stdout=output,
                stderr=output,
            )

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()

    def says(self, text: str) -> None:
        wait_until(f"ingest says {text!r}", lambda: text in self.log.read_text() or self.process.poll() is not None)
        assert text in self.log.read_text(), self.log.read_text()[-4000:]


class Writer:
    """Messages in every format, and with the schema's GUID in a header."""

    def __init__(self, deployment: Deployment, registry: SchemaRegistry, pb2: Any) -> None:  # noqa: F811
        self._deployment, self._pb2 = deployment, pb2
        self._registry = registry
        self._avro = registry.add(AVSC)
        self._protobuf = registry.add(base64.b64encode(pb2.DESCRIPTOR.serialized_pb).decode(), "PROTOBUF")

    def send(self, how: str, fields: dict[str, Any]) -> None:
        framed = how.split("-")[0]
        if framed in ("json", "msgpack"):
            encode: Any = encode_forget if "forget_user" in fields else encode_engagement
            self._deployment.send([encode(*fields.values(), framed)])
            return
        if framed == "avro":
            stream = io.BytesIO()
            fastavro.schemaless_writer(stream, PARSED_AVSC, fields)
            payload, schema_id = stream.getvalue(), self._avro
        else:
            is_forget = "forget_user" in fields
            names = {"item_id": "item_name"} if isinstance(fields.get("item_id"), str) else {}
            kind = self._pb2.ForgetRequest if is_forget else self._pb2.Engagement
            payload = kind(**{names.get(name, name): content for name, content in fields.items()}).SerializeToString()
            schema_id = self._protobuf
        index = b"" if framed == "avro" else b"\x02\x02" if "forget_user" in fields else b"\x00"
        if how.endswith("-guid"):
            guid = b"\x01" + UUID(self._registry.schemas[schema_id - 1]["guid"]).bytes
            self._deployment.send([payload], headers=[("trace", b"7"), (VALUE_HEADER, guid + index)])
        else:
            self._deployment.send([self._registry.frame(schema_id) + index + payload])


HOWS = ["json", "msgpack", "avro", "protobuf", "avro-guid", "protobuf-guid"]


def test_all_formats_on_one_topic_and_a_registry_that_comes_late(
    deployment: Deployment,
    registry: SchemaRegistry,
    pb2: Any,  # noqa: F811
) -> None:
    rng = random.Random(4)
    now_ms = int(time.time() * 1000)
    writer = Writer(deployment, registry, pb2)
    registry.login = "me:secret"
    registry.close()

    def some(n: int) -> None:
        for _ in range(n):
            user, at_ms = f"u{rng.randrange(USERS)}", now_ms - rng.randrange(10_000)
            item: int | str = rng.choice([rng.randrange(50), f"pin-{rng.randrange(50)}"])
            event = {"user_id": user, "item_id": item, "action": "save", "surface": "home", "timestamp_ms": at_ms}
            for how in rng.sample(HOWS, rng.choice([1, 1, 2])):  # the same event in two formats is one event
                writer.send(how, event)

    with deployment:
        ingest = Ingest(deployment, registry, deployment.directory / "ingest.log")
        deployment.start("sequence")
        some(EVENTS // 2)
        for at, how in enumerate(HOWS):
            writer.send(how, {"forget_user": f"u{at}", "timestamp_ms": now_ms - 5000})
        bad = [
            b"\x00\x00\x00\x03\xe7" + b"x" * 20,
            registry.frame(1) + b"\x08",
            registry.frame(2) + b"\x02\x02\xff",
            b"\xdf",
            b"{",
        ]
        deployment.send(bad)
        some(EVENTS // 2)
        ingest.says("waiting for it")
        assert deployment.dead_letters() == []
        registry.open()
        deployment.drain()

        letters = Counter(headers.reason for _, headers in deployment.dead_letters())
        assert letters == {"unknown_schema": 1, "schema_mismatch": 2, "not_msgpack": 1, "not_json": 1}
        assert sorted(message.value() or b"" for message, _ in deployment.dead_letters()) == sorted(bad)

        config = RegistryConfig(registry.url, {"basic.auth.user.info": "me:secret"})
        framed = framed_oracle(config, FORMATS, 10)
        rebuilt = rebuild(read_raw(deployment.kafka, deployment.names), ParserConfig(formats=FORMATS), framed=framed)
        assert len(rebuilt.sequences) == USERS
        assert len(rebuilt.unreadable) == len(bad)
        assert sum(floor > 0 for floor, _ in rebuilt.sequences.values()) == len(HOWS)
        assert rebuilt.messages > EVENTS
        assert compare(rebuilt, read_sequences(deployment.kafka, deployment.names)) == []
        assert ingest.stop() == 0
        assert "secret" not in ingest.log.read_text()


def test_it_stops_while_it_waits_and_has_committed_nothing(
    deployment: Deployment,
    registry: SchemaRegistry,
    pb2: Any,  # noqa: F811
) -> None:
    writer = Writer(deployment, registry, pb2)
    registry.failing = 503
    now_ms = int(time.time() * 1000)
    writer.send("avro", {"user_id": "u", "item_id": 1, "action": "save", "surface": "home", "timestamp_ms": now_ms})
    ingest = Ingest(deployment, registry, deployment.directory / "ingest.log")
    ingest.says("waiting for it")
    assert ingest.stop() == 0
    assert deployment.lag("ingest") == 1
    assert deployment.dead_letters() == []


def test_it_gives_up_and_has_committed_nothing(
    deployment: Deployment,
    registry: SchemaRegistry,
    pb2: Any,  # noqa: F811
) -> None:
    writer = Writer(deployment, registry, pb2)
    now_ms = int(time.time() * 1000)
    writer.send("protobuf", {"user_id": "u", "item_id": 1, "action": "save", "surface": "home", "timestamp_ms": now_ms})
    registry.login = "me:secret"
    config = IngestConfig(
        deployment.kafka,
        deployment.names,
        ParserConfig(formats=FORMATS),
        give_up_after_s=1.0,
        schema_registry=RegistryConfig(registry.url),
    )
    with pytest.raises(UnavailableError, match=r"schema registry http://127\.0\.0\.1:\d+: Unauthorized"):
        run_ingest(config)
    assert deployment.lag("ingest") == 1
    assert deployment.dead_letters() == []


DOCUMENT = (ROOT / "docs" / "events.md").read_text()


def test_the_documents_snippets_write_events(
    deployment: Deployment,
    registry: SchemaRegistry,
    pb2: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "engagement_pb2", pb2)
    monkeypatch.chdir(ROOT)
    now_ms = int(time.time() * 1000)
    snippets = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    assert len(snippets) == 4
    topic = deployment.names.engagements
    for snippet in snippets:
        given = {"now_ms": now_ms, "topic": topic, "producer": deployment.producer, "registry_url": registry.url}
        exec(snippet, given)
    assert deployment.producer.flush(30) == 0
    messages = deployment.read(topic)
    parser = Parser(ParserConfig(formats=FORMATS), framed_reader(RegistryConfig(registry.url), FORMATS, 10))
    parsed = Counter(parser.parse(message.value(), message.timestamp()[1]) for message in messages)
    event = Event(b"u-17", now_ms, 4711, 4, 1)
    named = event._replace(item_id=hash_item_id("pin-9"))
    assert parsed == {event: 2, named: 2, Forget(b"u-18", now_ms): 1}
    assert len({(message.value() or b"?")[0] for message in messages}) == 3


def test_the_document_has_the_settings_and_limits() -> None:
    for name in (
        "formats",
        "schema_registry_url",
        "schema_registry_options",
        "unknown_names",
        "max_future_ms",
        "max_age_ms",
    ):
        assert name in Settings.model_fields
        assert f"`{name}`" in DOCUMENT or f"{name} =" in DOCUMENT
    limits = (MAX_USER_BYTES, MAX_ITEM_BYTES, MAX_TIMESTAMP_MS, MAX_DEPTH, MAX_MESSAGE_BYTES // 1024)
    assert all(re.search(rf"\b{limit}\b", DOCUMENT) for limit in limits)
