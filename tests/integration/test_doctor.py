"""The doctor on real Kafka and Redis: set-ups that are broken on purpose, each named.

A full disk and clocks that differ cannot be had here: tests/slipstream/test_doctor.py gives their facts to the same checks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from confluent_kafka import Producer
from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]

from edge.kafka import Admin, KafkaConfig
from encoder.bundle import Bundle
from encoder.models_redis import activate_model
from encoder.runtime import RuntimeConfig
from schemas.errors import BundleError
from schemas.names import Names
from slipstream.doctor.deployment import Deployment, Part, probes
from slipstream.doctor.examine import examine
from slipstream.doctor.finding import Finding, Level
from slipstream.stack.process import HOST, free_port
from stream.topics import create_topics, partition_counts
from tests.bundles import random_bundle
from tests.integration.secure import SECRETS, Cli, SecureKafka
from tests.integration.streaming import wait_until
from tests.ranker.states import made_state

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

PASSWORD = "hunter2-of-redis"
VERSION_AT = 4  # of a state's value


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return random_bundle(tmp_path_factory.mktemp("model") / "bundle")


@pytest.fixture
def client(secure: SecureKafka) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(secure.stack.redis_url) as client:
        yield client
        client.config_set("maxmemory", 0)
        client.config_set("requirepass", "")


@pytest.fixture
def well(secure: SecureKafka, bundle: Bundle, client: redis.Redis, prefix: str, tmp_path: Path) -> Deployment:
    """A deployment without a fault."""
    kafka, names = KafkaConfig(secure.stack.kafka_bootstrap), Names(prefix)
    create_topics(kafka, names, 2)
    producer = Producer(kafka.client())
    producer.produce(names.engagements, b"{}")
    assert producer.flush(30) == 0
    activate_model(client, names, bundle.model_id)
    for user in range(3):
        client.set(names.state_key(bundle.model_id, b"u%d" % user), made_state(user, layout=bundle.layout))
    vocabulary, directories = bundle.manifest.vocabulary, {"data_dir": tmp_path}
    redis_url = secure.stack.redis_url
    return Deployment(names, vocabulary, kafka, redis_url, bundle.directory, RuntimeConfig(), directories)


def faults(deployment: Deployment, *parts: Part) -> dict[str, Finding]:
    """What is not as it should be."""
    made = probes(deployment, parts) if parts else probes(deployment)
    findings, unfinished = examine(made, 30, {"redis.password": PASSWORD})
    assert not unfinished
    assert not any(secret in repr(findings) for secret in (*SECRETS, PASSWORD))
    return {finding.check: finding for finding in findings if finding.level is not Level.OK}


def test_a_healthy_deployment(well: Deployment, secure: SecureKafka, tmp_path: Path) -> None:
    assert faults(well) == {}
    assert isinstance(well.kafka, KafkaConfig)
    assert isinstance(well.bundle, Path)
    cli = Cli(well.kafka, secure.stack.redis_url, well.names.prefix, well.bundle, tmp_path)
    code, said = cli.run("doctor", "--json")
    answer = json.loads(said.splitlines()[-1])
    assert (code, answer["healthy"]) == (0, True), said
    assert {check["check"] for check in answer["checks"]} >= {
        "provider",
        "model runs",
        "partitions",
        "states",
        "data_dir",
    }
    assert checked(answer, "provider")["details"]["runs_on"] == "cpu"
    assert checked(answer, "states")["details"]["looked_at"] == 3
    assert abs(checked(answer, "redis clock")["details"]["ahead_ms"]) < 1000


def checked(answer: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [check for check in answer["checks"] if check["check"] == name]
    return found


def test_wrong_ports(well: Deployment) -> None:
    kafka, redis_at = f"{HOST}:{free_port()}", f"{HOST}:{free_port()}"
    found = faults(replace(well, kafka=KafkaConfig(kafka)), "kafka", "redis", "disk")
    assert {finding.level for finding in found.values()} == {Level.FAIL, Level.SKIPPED}
    assert f"{kafka}: connection refused" in found["kafka"].found
    assert "`kafka_bootstrap`" in found["kafka"].advice
    assert "redis" not in found, "the one must not hide the other"
    found = faults(replace(well, redis_url=f"redis://{redis_at}/0"), "kafka", "redis")
    assert redis_at in found["redis"].found
    assert found["states"].level is Level.SKIPPED
    assert "kafka" not in found


def test_wrong_passwords(well: Deployment, secure: SecureKafka, client: redis.Redis) -> None:
    login = secure.config("plain")
    found = faults(replace(well, kafka=replace(login, options={**login.options, "sasl.password": "wrong"})), "kafka")
    assert "check the login" in found["kafka"].found
    client.config_set("requirepass", PASSWORD)
    wrong = f"redis://:not-{PASSWORD}@{secure.stack.redis_url.partition('://')[2]}"
    found = faults(replace(well, redis_url=wrong), "redis")
    assert "refuses us" in found["redis"].found
    assert "`redis_url`" in found["redis"].found


def test_a_missing_topic(well: Deployment) -> None:
    assert isinstance(well.kafka, KafkaConfig)
    admin, topic = Admin(well.kafka), well.names.dead_letters
    admin.client.delete_topics([topic])[topic].result()
    wait_until("the broker knows", lambda: not partition_counts(admin, [topic]))
    found = faults(well, "kafka")
    assert set(found) == {"topics"}, "what is there is looked at all the same"
    assert topic in found["topics"].found
    assert "slipstream topics create" in found["topics"].advice


def test_a_wrong_prefix(well: Deployment) -> None:
    found = faults(replace(well, names=Names(f"{well.names.prefix}-typo")), "kafka")
    assert f"prefixes {well.names.prefix}" in found["topics"].advice


def test_unequal_partitions(well: Deployment) -> None:
    assert isinstance(well.kafka, KafkaConfig)
    admin, topic = Admin(well.kafka), well.names.batches
    admin.client.create_partitions([NewPartitions(topic, 3)])[topic].result()
    wait_until("the broker knows", lambda: partition_counts(admin, [topic])[topic] == 3)
    found = faults(well, "kafka")
    assert set(found) == {"partitions"}
    assert "has 3 partitions" in found["partitions"].found


def test_redis_out_of_memory(well: Deployment, client: redis.Redis) -> None:
    client.config_set("maxmemory", "100kb")
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        client.set("a", "b")
    found = faults(well, "redis")
    assert set(found) == {"redis memory"}
    assert "out of memory" in found["redis memory"].found


def test_rights_on_redis(well: Deployment, secure: SecureKafka, client: redis.Redis) -> None:
    """docs/operations.md lists those that are needed."""
    user = replace(well, redis_url=f"redis://doctor:{PASSWORD}@{secure.stack.redis_url.partition('://')[2]}")
    client.execute_command("ACL SETUSER", "doctor", "on", f">{PASSWORD}", f"~{well.names.prefix}:*", "+get")
    found = faults(user, "redis")
    assert {finding.level for finding in found.values()} == {Level.WARN}
    assert "+info" in found["redis memory"].advice
    needed = ("+get", "+info", "+time", "+ping", "+scan", "+getrange", "+config|get")
    client.execute_command("ACL SETUSER", "doctor", *needed)
    assert faults(user, "redis") == {}


def test_a_model_that_is_not_there_or_is_not_what_it_says(well: Deployment, bundle: Bundle, tmp_path: Path) -> None:
    found = faults(replace(well, bundle=BundleError("no model bundle at nowhere")), "model", "redis")
    assert "nowhere" in found["model"].found
    assert found["states"].level is Level.SKIPPED
    changed = random_bundle(tmp_path / "changed").directory
    table = bytearray((changed / "actions.npy").read_bytes())
    table[-1] ^= 1
    (changed / "actions.npy").write_bytes(table)
    found = faults(replace(well, bundle=changed), "model")
    assert "SHA-256" in found["model"].found


def test_a_missing_provider(well: Deployment, secure: SecureKafka, tmp_path: Path) -> None:
    cuda = RuntimeConfig(("cuda", "cpu"), require_provider="cuda")
    found = faults(replace(well, runtime=cuda), "runtime", "model")
    assert "cuda is required" in found["provider"].found
    assert "slipstream-embeddings[gpu]" in found["provider"].found
    assert set(found) == {"provider", "model runs"}
    assert set(faults(replace(well, runtime=RuntimeConfig(("cuda", "cpu"))), "runtime")) == {"provider"}


def test_an_old_state_format(well: Deployment, bundle: Bundle, client: redis.Redis) -> None:
    key = well.names.state_key(bundle.model_id, b"u0")
    value = bytearray(client.get(key))  # type: ignore[arg-type]
    value[VERSION_AT] -= 1
    client.set(key, bytes(value))
    found = faults(well, "redis")
    assert set(found) == {"states"}
    assert f"1 of 3: a state: state version {value[VERSION_AT]}" in found["states"].found


def test_a_failure_ends_with_its_exit_code_and_a_table(well: Deployment, secure: SecureKafka, tmp_path: Path) -> None:
    assert isinstance(well.bundle, Path)
    nowhere = KafkaConfig(f"{HOST}:{free_port()}", secure.options["plain"])
    cli = Cli(nowhere, secure.stack.redis_url, well.names.prefix, well.bundle, tmp_path)
    code, said = cli.run("doctor", "--only", "kafka", "--only", "disk")
    assert (code, nowhere.bootstrap_servers in said) == (12, True), said
    assert not any(secret in said for secret in SECRETS)
    assert "Traceback" not in said
    assert cli.run("doctor", "--only", "kafak")[0] == 2
