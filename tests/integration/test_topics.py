"""Topics and metrics on real Kafka. Run: pytest tests/integration/test_topics.py"""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
from confluent_kafka.admin import ConfigResource, NewPartitions, ResourceType  # type: ignore[attr-defined]

from edge.kafka import Admin, KafkaConfig, topic_id
from schemas.errors import TopicError
from schemas.names import Names
from slipstream.stack.process import free_port
from stream.topics import check_topics, create_topics, partition_counts, plan_topics
from tests.integration.streaming import Deployment, random_events, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def test_creation_is_idempotent_and_sets_what_the_plan_says(kafka_bootstrap: str, prefix: str) -> None:
    kafka, names = KafkaConfig(kafka_bootstrap), Names(prefix)
    first = create_topics(kafka, names, 3)
    assert first.created == tuple(first.partitions)
    assert set(first.partitions.values()) == {3}
    again = create_topics(kafka, names, 3)
    assert (again.created, again.kept) == ((), first.created)
    assert check_topics(kafka, names) == first.partitions
    resources = {p.name: ConfigResource(ResourceType.TOPIC, p.name) for p in plan_topics(names, 3)}
    admin = Admin(kafka)
    futures = admin.client.describe_configs(list(resources.values()))
    for plan in plan_topics(names, 3):
        found = futures[resources[plan.name]].result()
        assert {key: found[key].value for key in plan.config} == plan.config


def test_unequal_partitions_are_refused(kafka_bootstrap: str, prefix: str) -> None:
    kafka, names = KafkaConfig(kafka_bootstrap), Names(prefix)
    create_topics(kafka, names, 2)
    with pytest.raises(TopicError, match=r"engagement-batches exists with 2 partitions, not 4.*Use partitions 2"):
        create_topics(kafka, names, 4)
    admin = Admin(kafka)
    grown = [names.engagements, names.dead_letters]
    for future in admin.client.create_partitions([NewPartitions(topic, 5) for topic in grown]).values():
        future.result()
    wait_until(
        "the brokers know", lambda: check_topics(kafka, names)[names.engagements] == 5
    )  # any number is fine there
    assert create_topics(kafka, names, 2).created == ()
    admin.client.create_partitions([NewPartitions(names.batches, 3)])[names.batches].result()
    wait_until("the brokers know", lambda: partition_counts(admin, [names.batches])[names.batches] == 3)
    with pytest.raises(TopicError, match=r"has 3 partitions and .* has 2"):
        check_topics(kafka, names)


def test_a_topic_made_again_has_another_id(kafka_bootstrap: str, prefix: str) -> None:
    kafka, names = KafkaConfig(kafka_bootstrap), Names(prefix)
    with pytest.raises(TopicError, match=names.sequences):
        topic_id(kafka, names.sequences)
    create_topics(kafka, names, 1)
    first = topic_id(kafka, names.sequences)
    assert len(first) == 16
    assert topic_id(kafka, names.sequences) == first
    admin = Admin(kafka)
    admin.client.delete_topics([names.sequences])[names.sequences].result()
    wait_until("it is made again", lambda: bool(create_topics(kafka, names, 1).created))
    assert topic_id(kafka, names.sequences) != first


def scrape(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_metrics_tell_what_happened(kafka_bootstrap: str, prefix: str, tmp_path: Path) -> None:
    ports = {"ingest": (port := free_port()), "sequence": free_port([port])}
    with Deployment(kafka_bootstrap, prefix, tmp_path) as deployment:
        workers = [deployment.start(stage, metrics_port=port) for stage, port in ports.items()]
        deployment.send([*random_events(1000, 50), b"bad", b"worse"])
        deployment.drain()
        ingest = scrape(ports["ingest"])
        assert ingest['slipstream_messages_total{stage="ingest"}'] == 1002
        assert ingest["slipstream_ingest_events_total"] == 1000
        assert ingest['slipstream_ingest_dead_letters_total{reason="not_json"}'] == 2
        assert ingest['slipstream_freshness_seconds_count{stage="ingest"}'] > 0
        assert ingest['slipstream_ready{stage="ingest"}'] == 1
        wait_until("the users are counted", lambda: scrape(ports["sequence"])["slipstream_sequence_users"] > 0)
        sequence = scrape(ports["sequence"])
        assert sequence['slipstream_ready{stage="sequence"}'] == 1
        assert sequence["slipstream_sequence_partitions"] == 4
        assert sequence['slipstream_messages_total{stage="sequence"}'] == ingest["slipstream_ingest_batches_total"]
        assert sequence["slipstream_sequence_transaction_seconds_count"] > 0
        assert sequence["slipstream_sequence_changelog_bytes_total"] > 0
        taken = deployment.start("ingest", metrics_port=ports["ingest"])
        assert taken.wait() == 2
        assert f"metrics port {ports['ingest']}" in taken.text()
        assert [worker.stop() for worker in workers] == [0, 0]
