"""The whole product against a real broker with logins, certificates and access rights.

Run: pytest tests/integration/test_security.py
"""

from __future__ import annotations

import re
import signal
import time
import uuid
from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from edge.kafka import Admin, KafkaConfig
from schemas.event import Parser, ParserConfig
from schemas.names import Names, readers_group
from stream.lag import group_lag
from stream.oracle import compare, read_raw, read_sequences, rebuild
from stream.pack import pack
from stream.topics import create_topics
from tests.edge.certificates import Authority
from tests.encoder.models import Model
from tests.integration.secure import SECRETS, USER, Cli, SecureKafka
from tests.integration.streaming import random_events, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PRINCIPALS = ("User:app", "User:CN=client")
STAGES = ("ingest", "sequence", "encode")


def rights(prefix: str, principals: tuple[str, ...] = PRINCIPALS) -> list[AclBinding]:
    """What docs/operations.md says that one user for everything needs, and not more: all of it under the prefix."""
    kinds = {
        ResourceType.TOPIC: (
            AclOperation.READ,
            AclOperation.WRITE,
            AclOperation.CREATE,
            AclOperation.DESCRIBE,
            AclOperation.DESCRIBE_CONFIGS,
        ),
        ResourceType.GROUP: (AclOperation.READ, AclOperation.DESCRIBE),
        ResourceType.TRANSACTIONAL_ID: (AclOperation.WRITE, AclOperation.DESCRIBE),
    }
    return [
        AclBinding(kind, prefix, ResourcePatternType.PREFIXED, who, "*", operation, AclPermissionType.ALLOW)
        for who in principals
        for kind, operations in kinds.items()
        for operation in operations
    ]


def grant(kafka: SecureKafka, bindings: list[AclBinding]) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.stack.kafka_bootstrap})
    for future in admin.create_acls(bindings).values():
        future.result()


@pytest.mark.parametrize("mode", ["scram-512", "plain", "oauth", "mtls"])
def test_the_whole_way(secure: SecureKafka, model: Model, prefix: str, tmp_path: Path, mode: str) -> None:
    kafka, names = secure.config(mode), Names(prefix)
    cli = Cli(kafka, secure.stack.redis_url, prefix, model.bundle.directory, tmp_path)
    grant(secure, rights(prefix))
    code, said = cli.run("topics", "create")
    assert code == 0, said
    producer = Producer(kafka.client())
    for value in [*random_events(300, 20, forget_share=0), b"not json"]:
        producer.produce(names.engagements, value)
    assert producer.flush(30) == 0
    with_encoder = mode in ("scram-512", "mtls")  # the encoder's clients are librdkafka's, as ingest's are
    with ExitStack() as until_the_end:
        stages = [cli.start(stage) for stage in STAGES[: 2 + with_encoder]]
        for process, _ in stages:
            until_the_end.callback(process.wait)
            until_the_end.callback(process.kill)

        def done() -> bool:
            for process, log in stages:
                assert process.poll() is None, log.read_text()
            admin, encoders = Admin(kafka), names.encoder_group(model.bundle.model_id)
            lags = [group_lag(admin, names.ingest_group, [names.engagements])]
            lags += [group_lag(admin, names.sequence_app, [names.batches])]
            lags += [group_lag(admin, encoders, [names.sequences], kafka)] if with_encoder else []
            return not any(sum(lag.values()) for lag in lags)

        wait_until("all stages have caught up", done, 90)
        for process, log in stages:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, log.read_text()
    rebuilt = rebuild(read_raw(kafka, names), ParserConfig(), 256)
    assert rebuilt.sequences
    assert compare(rebuilt, read_sequences(kafka, names)) == []
    for command, shown in [(("dead-letters", "list"), "not_json")] + [
        (("verify",), "20 states checked")
    ] * with_encoder:
        code, said = cli.run(*command)
        assert code == 0, said
        assert shown in said
    assert_no_secret(cli.run("config")[1], *(log.read_text() for _, log in stages))


def assert_no_secret(*texts: str) -> None:
    for text in texts:
        for secret in SECRETS:
            assert secret not in text


WRONG = {
    "password": ("scram-512", {"sasl.password": SECRETS[0] + "-not"}, "uthentication"),
    "password of PLAIN": ("plain", {"sasl.password": SECRETS[0] + "-not"}, "uthentication"),
    "mechanism": ("plain", {"sasl.mechanism": "SCRAM-SHA-1"}, "SCRAM-SHA-1"),
    "client secret": ("oauth", {"sasl.oauthbearer.client.secret": SECRETS[3] + "-not"}, "OAUTHBEARER token"),
    "authority": ("scram-512", {"ssl.ca.location": "OTHER"}, "certificate verify failed"),
    "no client certificate": ("mtls", {"ssl.certificate.location": "", "ssl.key.location": ""}, "SSL alert"),
    "key password": ("mtls", {"ssl.key.password": SECRETS[1] + "-not"}, "ssl.key|certificate and key"),
    "option": ("plain", {"sasl.pasword": SECRETS[0]}, "sasl.pasword"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_refused_login_is_one_clear_error(secure: SecureKafka, model: Model, tmp_path: Path, wrong: str) -> None:
    mode, changes, named = WRONG[wrong]
    (tmp_path / "other.pem").write_text(Authority("other").pem())
    changes = {name: str(tmp_path / "other.pem") if value == "OTHER" else value for name, value in changes.items()}
    options = {name: value for name, value in {**secure.options[mode], **changes}.items() if value}
    kafka = KafkaConfig(secure.config(mode).bootstrap_servers, options)
    cli = Cli(kafka, secure.stack.redis_url, f"t{uuid.uuid4().hex[:8]}", model.bundle.directory, tmp_path)
    commands = [("topics", "create"), *((stage,) for stage in STAGES)]
    started = [cli.start(*command) for command in commands]
    for process, log in started:
        try:
            code = process.wait(60)
        finally:
            process.kill()
            process.wait()
        text = log.read_text()
        assert code == 2, text
        assert len(text.strip().splitlines()) == 1, text
        assert re.search(named, text), text
        assert_no_secret(text)


def test_each_stage_with_the_rights_of_the_document(
    secure: SecureKafka, model: Model, prefix: str, tmp_path: Path
) -> None:
    """docs/operations.md, Security: what each stage's user needs, and no more."""
    names = Names(prefix)
    topics = (names.engagements, names.dead_letters, names.batches, names.sequences)
    kafka = KafkaConfig(secure.stack.kafka_bootstrap)
    create_topics(kafka, names, 4)
    table: dict[str, list[tuple[ResourceType, str, AclOperation]]] = {
        "ingest": [
            (ResourceType.TOPIC, names.engagements, AclOperation.READ),
            (ResourceType.TOPIC, names.engagements, AclOperation.DESCRIBE_CONFIGS),
            (ResourceType.TOPIC, names.batches, AclOperation.WRITE),
            (ResourceType.TOPIC, names.dead_letters, AclOperation.WRITE),
            (ResourceType.GROUP, names.ingest_group, AclOperation.READ),
        ],
        "sequence": [
            (ResourceType.TOPIC, names.batches, AclOperation.READ),
            (ResourceType.TOPIC, names.sequences, AclOperation.READ),
            (ResourceType.TOPIC, names.sequences, AclOperation.WRITE),
            (ResourceType.TOPIC, names.dead_letters, AclOperation.WRITE),
            (ResourceType.GROUP, names.sequence_app, AclOperation.READ),
            (ResourceType.GROUP, readers_group(names.sequences), AclOperation.READ),
            (ResourceType.TRANSACTIONAL_ID, f"{prefix}-sequences-", AclOperation.WRITE),
            (ResourceType.TRANSACTIONAL_ID, f"{prefix}-sequences-", AclOperation.DESCRIBE),
        ],
        "encode": [
            (ResourceType.TOPIC, names.sequences, AclOperation.READ),
            (ResourceType.GROUP, f"{prefix}-encoder-", AclOperation.READ),
        ],
    }
    prefixed, allow = ResourcePatternType.PREFIXED, AclPermissionType.ALLOW
    for stage in ("ingest", "sequence"):
        table[stage] += [(ResourceType.TOPIC, topic, AclOperation.DESCRIBE) for topic in topics]
    grant(
        secure,
        [
            AclBinding(kind, name, prefixed, f"User:{stage}", "*", operation, allow)
            for stage, granted in table.items()
            for kind, name, operation in granted
        ],
    )
    producer = Producer(kafka.client())
    for value in [*random_events(300, 20, forget_share=0), b"not json"]:
        producer.produce(names.engagements, value)
    assert producer.flush(30) == 0
    with ExitStack() as until_the_end:
        stages = []
        for _ in range(2):  # the second time the sequence stage loads its tables
            stages = []
            for stage in STAGES:
                user = KafkaConfig(secure.sasl, {**secure.options["plain"], "sasl.username": stage})
                cli = Cli(user, secure.stack.redis_url, prefix, model.bundle.directory, tmp_path)
                stages.append(cli.start(stage))
                until_the_end.callback(stages[-1][0].wait)
                until_the_end.callback(stages[-1][0].kill)

            def done() -> bool:
                for process, log in stages:  # noqa: B023
                    assert process.poll() is None, log.read_text()
                admin, encoders = Admin(kafka), names.encoder_group(model.bundle.model_id)
                lags = [group_lag(admin, names.ingest_group, [names.engagements])]
                lags += [group_lag(admin, names.sequence_app, [names.batches])]
                lags += [group_lag(admin, encoders, [names.sequences], kafka)]
                return not any(sum(lag.values()) for lag in lags)

            wait_until("all stages have caught up", done, 90)
            producer.produce(names.engagements, random_events(1, 1, seed=7, forget_share=0)[0])
            assert producer.flush(30) == 0
            wait_until("all stages have caught up again", done, 90)
            for process, log in stages:
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 0, log.read_text()
                assert "refused" not in log.read_text()
                assert "uthoriz" not in log.read_text()
    rebuilt = rebuild(read_raw(kafka, names), ParserConfig(), 256)
    assert compare(rebuilt, read_sequences(kafka, names)) == []


REVOKED = {
    "reading the raw topic": ("ingest", ResourceType.TOPIC, "engagements", 5),
    "writing batches": ("ingest", ResourceType.TOPIC, "batches", 5),
    "the group of ingest": ("ingest", ResourceType.GROUP, "ingest_group", 2),
    "reading batches": ("sequence", ResourceType.TOPIC, "batches", 5),
    "writing the changelog": ("sequence", ResourceType.TOPIC, "sequences", 5),
    "the group of sequence": ("sequence", ResourceType.GROUP, "sequence_app", 2),
    "its transactions": ("sequence", ResourceType.TRANSACTIONAL_ID, "", 2),
    "reading the changelog": ("encode", ResourceType.TOPIC, "sequences", 5),
    "the group of encode": ("encode", ResourceType.GROUP, "", 2),
}


@pytest.mark.parametrize("revoked", REVOKED)
def test_a_right_that_is_taken_away_ends_the_stage(
    secure: SecureKafka, model: Model, prefix: str, tmp_path: Path, revoked: str
) -> None:
    stage, kind, attribute, code = REVOKED[revoked]
    names = Names(prefix)
    kafka = KafkaConfig(secure.sasl, {**secure.options["plain"], "sasl.username": USER})
    cli = Cli(kafka, secure.stack.redis_url, prefix, model.bundle.directory, tmp_path)
    grant(secure, rights(prefix))
    assert cli.run("topics", "create")[0] == 0
    process, log = cli.start(stage)
    try:
        has_some = {"ingest": "got [", "sequence": "got [0", "encode": "reading partitions"}[stage]
        wait_until("it has partitions", lambda: has_some in log.read_text())
        resource = getattr(names, attribute) if attribute else prefix
        pattern = ResourcePatternType.LITERAL if attribute else ResourcePatternType.PREFIXED
        deny = AclBinding(kind, resource, pattern, PRINCIPALS[0], "*", AclOperation.ALL, AclPermissionType.DENY)
        grant(secure, [deny])
        # Something to do, or it may not notice for long.
        produce(secure, names, stage)
        assert process.wait(90) == code, log.read_text()
    finally:
        process.kill()
        process.wait()
    text = log.read_text()
    assert "Traceback" not in text
    assert "uthoriz" in text
    assert_no_secret(text)


def produce(secure: SecureKafka, names: Names, stage: str) -> None:
    """Input for the stage, by a user that may do everything."""
    producer = Producer({"bootstrap.servers": secure.stack.kafka_bootstrap})
    for event in random_events(50, 20, forget_share=0):
        if stage == "ingest":
            producer.produce(names.engagements, event)
    if stage != "ingest":
        arrived = [int(time.time() * 1000)] * 50
        packed = pack(random_events(50, 20, forget_share=0), arrived, Parser(ParserConfig()), 4, 1 << 20)
        for batch in packed.batches if stage == "sequence" else ():
            producer.produce(names.batches, batch.value, partition=batch.partition)
    assert producer.flush(30) == 0
