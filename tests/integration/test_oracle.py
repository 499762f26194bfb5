"""The oracle's reading of real topics: transactions, aborted ones, tombstones, topics that no longer hold everything."""

from __future__ import annotations

import threading

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from edge.kafka import KafkaConfig
from schemas.errors import TopicError, UnavailableError
from schemas.event import ParserConfig, encode_engagement, encode_forget
from schemas.names import Names
from stream.inject import InjectConfig
from stream.logs import read_log
from stream.oracle import compare, encode, read_raw, read_sequences, rebuild
from stream.partitioner import partitions_of
from stream.replay import ReplayConfig, run_replay
from stream.topics import create_topics
from stream.whole_topic import Record, read_whole

pytestmark = pytest.mark.integration
PARTITIONS = 2
RULES = ParserConfig()


@pytest.fixture
def kafka(kafka_bootstrap: str) -> KafkaConfig:
    return KafkaConfig(kafka_bootstrap)


@pytest.fixture
def names(kafka: KafkaConfig, prefix: str) -> Names:
    names = Names(prefix)
    create_topics(kafka, names, PARTITIONS)
    return names


@pytest.fixture
def writer(kafka: KafkaConfig, prefix: str) -> Producer:
    """Transactional, as the sequence stage's."""
    producer = Producer(kafka.client(transactional_id=f"{prefix}-writer", transaction_timeout_ms=60_000))
    producer.init_transactions(10)
    return producer


def transact(producer: Producer, topic: str, *records: tuple[bytes | None, bytes | None], commit: bool = True) -> None:
    producer.begin_transaction()
    for key, value in records:
        partition = partitions_of([key or b""], PARTITIONS)[0].item()
        producer.produce(topic, value, key, partition=partition)
    producer.flush(10)
    if commit:
        producer.commit_transaction(10)
    else:
        producer.abort_transaction(10)


def read_all(kafka: KafkaConfig, topic: str) -> list[Record]:
    """In a thread: a reader that waits for ever fails the test, and does not stop the run."""
    records: list[Record] = []
    reading = threading.Thread(
        target=lambda: records.extend(record for some in read_whole(kafka, topic) for record in some), daemon=True
    )
    reading.start()
    reading.join(20)
    assert not reading.is_alive(), f"still reading {topic}"
    return records


ONE = [(10, 1, 4, 1)]
TWO = [*ONE, (20, 2, 4, 1)]


def test_the_changelog_is_read_committed_up_to_its_last_marker(
    kafka: KafkaConfig, names: Names, writer: Producer
) -> None:
    topic = names.sequences
    old, new, other = encode(0, ONE), encode(0, TWO), encode(5, [])
    transact(writer, topic, (b"a", old), (b"b", old), (b"c", old))
    transact(writer, topic, (b"a", other), (b"d", other), commit=False)
    transact(writer, topic, (b"a", new), (b"b", None))
    transact(writer, topic, (b"c", other), commit=False)  # the partition ends with an aborted record and a marker
    changelog = read_sequences(kafka, names)
    assert changelog.partitions == PARTITIONS
    assert {user: found.value for user, found in changelog.sequences.items()} == {b"a": new, b"c": old}
    assert not changelog.misplaced
    assert not changelog.keyless

    home = partitions_of([b"a"], PARTITIONS)[0].item()
    found = changelog.sequences[b"a"]
    assert (found.partition, found.offset) == (home, max(r.offset for r in read_all(kafka, topic) if r.key == b"a"))


def test_an_open_transaction_is_not_waited_for(kafka: KafkaConfig, names: Names, writer: Producer) -> None:
    transact(writer, names.sequences, (b"a", encode(0, ONE)))
    writer.begin_transaction()
    for partition in range(PARTITIONS):
        writer.produce(names.sequences, b"not yet", b"a", partition=partition)
    writer.flush(10)
    assert [record.value for record in read_all(kafka, names.sequences)] == [encode(0, ONE)]
    writer.abort_transaction(10)


def test_raw_messages_of_aborted_transactions_never_happened(
    kafka: KafkaConfig, names: Names, writer: Producer
) -> None:
    first, second = (encode_engagement("u", item, "save", "home", 10 * item) for item in (1, 2))
    transact(writer, names.engagements, (None, first), (b"any key", first))
    transact(writer, names.engagements, (None, second), (None, encode_forget("u", 99)), commit=False)
    transact(writer, names.engagements, (None, None), (None, b"\xff"))
    rebuilt = rebuild(read_raw(kafka, names), RULES)
    assert rebuilt.sequences == {b"u": (0, [(10, 1, 4, 1)])}
    assert (rebuilt.messages, len(rebuilt.unreadable)) == (4, 2)
    transact(writer, names.sequences, (b"u", encode(0, ONE)))
    assert compare(rebuilt, read_sequences(kafka, names)) == []


def test_a_replay_is_rebuilt_to_the_log(kafka: KafkaConfig, names: Names) -> None:
    log = read_log("ml-100k")[:2000]
    report = run_replay(ReplayConfig(kafka, names, inject=InjectConfig(0.1, 0.1, 0.05)), log)
    seen: list[tuple[int, int]] = []
    rebuilt = rebuild(read_raw(kafka, names, lambda passed, total: seen.append((passed, total))), RULES)
    assert len(rebuilt.unreadable) == report.malformed_sent == 100
    assert rebuilt.messages == report.messages_sent
    wanted: dict[bytes, list[tuple[int, ...]]] = {}
    for user, record in zip(log.user_index.tolist(), log.records.tolist(), strict=True):
        wanted.setdefault(log.users[user].encode(), []).append(record)
    assert rebuilt.sequences == {user: (0, sorted(rows)[-256:]) for user, rows in wanted.items()}
    assert seen == sorted(seen)
    assert seen[-1] == (report.messages_sent, report.messages_sent)


def test_empty_topics_are_nothing(kafka: KafkaConfig, names: Names) -> None:
    assert rebuild(read_raw(kafka, names), RULES).messages == 0
    assert read_sequences(kafka, names).sequences == {}


def test_a_raw_topic_that_lost_its_beginning_is_no_evidence(kafka: KafkaConfig, names: Names) -> None:
    run_replay(ReplayConfig(kafka, names), read_log("ml-100k")[:100])
    admin = AdminClient(kafka.client())
    for future in admin.delete_records([TopicPartition(names.engagements, 0, 3)]).values():
        future.result()
    with pytest.raises(TopicError, match="partition 0 begins at offset 3: retention"):
        rebuild(read_raw(kafka, names), RULES)


def test_a_compacted_raw_topic_is_no_evidence(kafka: KafkaConfig, prefix: str) -> None:
    names = Names(prefix)
    admin = AdminClient(kafka.client())
    new = NewTopic(names.engagements, num_partitions=1, replication_factor=1, config={"cleanup.policy": "compact"})
    admin.create_topics([new])[names.engagements].result()
    with pytest.raises(TopicError, match="compacted"):
        rebuild(read_raw(kafka, names), RULES)


def test_missing_topics_are_named(kafka: KafkaConfig) -> None:
    with pytest.raises(TopicError, match=r"nowhere\.engagements.*topics create"):
        list(read_raw(kafka, Names("nowhere")))
    with pytest.raises(TopicError, match=r"nowhere\.sequences.*topics create"):
        read_sequences(kafka, Names("nowhere"))


def test_no_kafka_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.topics.REQUEST_TIMEOUT_S", 0.5)
    with pytest.raises(UnavailableError):
        read_sequences(KafkaConfig("127.0.0.1:1"), Names())
