"""Training from the raw topic: what a real topic holds, by the rules of ingest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Producer

from edge.kafka import KafkaConfig
from schemas.errors import LogError, TopicError
from schemas.event import ParserConfig, encode_engagement, encode_forget
from schemas.names import Names
from stream.topic_log import read_topic
from stream.topics import create_topics

pytestmark = pytest.mark.integration
RULES = ParserConfig()


@pytest.fixture
def kafka(kafka_bootstrap: str) -> KafkaConfig:
    return KafkaConfig(kafka_bootstrap)


@pytest.fixture
def topic(kafka: KafkaConfig, prefix: str) -> str:
    create_topics(kafka, Names(prefix), 2)
    return Names(prefix).engagements


def write(kafka: KafkaConfig, topic: str, *messages: bytes | None) -> None:
    producer = Producer(kafka.client())
    for at, message in enumerate(messages):
        producer.produce(topic, message, partition=at % 2)
    assert producer.flush(20) == 0


def event(user: str, item: int | str, timestamp_ms: int) -> bytes:
    return encode_engagement(user, item, "save", "home", timestamp_ms)


def test_a_topic_is_a_log(kafka: KafkaConfig, topic: str) -> None:
    with pytest.raises(LogError, match="no events"):
        read_topic(kafka, topic, RULES)
    write(
        kafka,
        topic,
        event("ann", 7, 3000),
        event("bob", 8, 1000),
        event("ann", 9, 2000),
        b"not an event",
        event("ann", 9, 2000),  # sent twice
        event("cy", 5, 500),
        encode_forget("cy", 500),
        encode_forget("ann", 2000),
        event("ann", 4, 1999),  # late
        event("bob", "a string", 4000),
    )
    loaded = read_topic(kafka, topic, RULES)
    log = loaded.log
    assert sorted(log.users) == ["ann", "bob"]
    assert [log.users[i] for i in log.user_index] == ["bob", "ann", "bob"]
    assert log.records["timestamp_ms"].tolist() == [1000, 3000, 4000]
    assert log.records["item_id"].tolist()[:2] == [8, 7]
    assert loaded.skipped == 1
    assert loaded.skipped_by_column == {"not_json": 1}
    assert "offset" in loaded.examples[0]


def test_equal_events_are_one(kafka: KafkaConfig, topic: str) -> None:
    write(kafka, topic, *[event("ann", item, 1000 + item) for item in (1, 2, 1, 3, 2, 1)])
    log = read_topic(kafka, topic, RULES).log
    assert log.records["item_id"].tolist() == [1, 2, 3]


def test_a_topic_that_is_not_there_is_named(kafka: KafkaConfig, prefix: str) -> None:
    with pytest.raises(TopicError, match="nowhere"):
        read_topic(kafka, f"{prefix}-nowhere", RULES)


def test_a_model_is_trained_from_a_topic(kafka: KafkaConfig, topic: str, prefix: str, tmp_path: Path) -> None:
    write(kafka, topic, *[event(f"user-{at % 9}", at % 31, 1000 * at + 1000) for at in range(300)])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "slipstream", "--kafka-bootstrap", kafka.bootstrap_servers, "--prefix", prefix),
            *("train", "kafka:", "--max-steps", "2", "--set", "threads=1", "--no-export", "--json"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (json.loads(done.stdout)["users"], json.loads(done.stdout)["events"]) == (9, 285)
