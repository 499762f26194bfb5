"""Replay into real Kafka: counted from the topic, not from the report."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from edge.kafka import KafkaConfig
from schemas.errors import EventError, SlipstreamError, TopicError, UnavailableError
from schemas.event import Event, Parser, ParserConfig
from schemas.log import EventLog
from schemas.names import Names
from schemas.vocabulary import Vocabulary
from slipstream.stack import running, start_part, stop_part
from stream.inject import InjectConfig
from stream.logs import read_log
from stream.pace import FixedRate
from stream.replay import ReplayConfig, ReplayReport, run_replay

pytestmark = pytest.mark.integration
PARTITIONS = 3


@pytest.fixture
def names(kafka_bootstrap: str, prefix: str) -> Names:
    names = Names(prefix)
    make_topic(kafka_bootstrap, names.engagements)
    return names


@pytest.fixture(scope="module")
def log() -> EventLog:
    return read_log("ml-100k", Vocabulary())[:2000]


def make_topic(bootstrap: str, topic: str, **config: str) -> None:
    settings = {name.replace("_", "."): value for name, value in config.items()}
    new = NewTopic(topic, num_partitions=PARTITIONS, replication_factor=1, config=settings)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([new])[topic].result()


def read_topic(bootstrap: str, topic: str) -> list[tuple[int, bytes | None, bytes | None]]:
    """(partition, key, value) of every message, each partition in order."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    messages, left = [], PARTITIONS
    while left:
        for message in consumer.consume(1000, 1.0):
            if message.error():
                left -= 1
            else:
                messages.append((message.partition(), message.key(), message.value()))
    consumer.close()
    return messages


def expected_events(log: EventLog) -> Counter[Event]:
    users = [log.users[user].encode() for user in log.user_index.tolist()]
    return Counter(Event(user, *record) for user, record in zip(users, log.records.tolist(), strict=True))


def test_everything_arrives_and_only_what_the_report_says(kafka_bootstrap: str, names: Names, log: EventLog) -> None:
    inject = InjectConfig(duplicates=0.05, late=0.03, malformed=0.02, seed=1)
    seen: list[ReplayReport] = []
    config = ReplayConfig(KafkaConfig(kafka_bootstrap), names, FixedRate(4000), inject, progress_s=0.05)
    report = run_replay(config, log, on_progress=seen.append)
    assert (report.events_sent, report.late_sent, report.duplicates_sent, report.malformed_sent) == (2000, 60, 100, 40)
    assert report.messages_sent == 2140
    assert not report.stopped
    assert report.first_ms <= report.last_ms
    assert report.events_per_s == pytest.approx(2000 / report.seconds)

    parser, readable, unreadable = Parser(ParserConfig()), Counter[Event](), 0
    for _, key, value in read_topic(kafka_bootstrap, names.engagements):
        try:
            event = parser.parse(value, report.last_ms)
        except EventError:
            unreadable += 1
        else:
            assert isinstance(event, Event)
            assert key == event.user
            readable[event] += 1
    assert unreadable == 40
    assert readable.keys() == expected_events(log).keys()
    assert Counter(readable.values()) == {1: 1900, 2: 100}

    counts = [progress.messages_sent for progress in seen]
    assert counts == sorted(counts)
    assert seen[-1] == report
    assert len(seen) > 2


def test_late_events_arrive_late_and_keys_order_a_user(kafka_bootstrap: str, names: Names, log: EventLog) -> None:
    """Without late events, a partition holds the log's order, as fast as possible too."""
    run_replay(ReplayConfig(KafkaConfig(kafka_bootstrap), names), log)
    parser = Parser(ParserConfig())
    by_partition: dict[int, list[int]] = {}
    partition_of_user: dict[bytes | None, set[int]] = {}
    for partition, key, value in read_topic(kafka_bootstrap, names.engagements):
        event = parser.parse(value, 2_000_000_000_000)
        assert isinstance(event, Event)
        by_partition.setdefault(partition, []).append(event.timestamp_ms)
        partition_of_user.setdefault(key, set()).add(partition)
    assert len(by_partition) == PARTITIONS
    assert all(times == sorted(times) for times in by_partition.values())
    assert all(len(partitions) == 1 for partitions in partition_of_user.values())


def test_the_hook_sees_each_event_once_before_it_is_sent(kafka_bootstrap: str, names: Names, log: EventLog) -> None:
    sent_before: list[int] = []
    chunks: list[np.ndarray] = []

    def before_send(events: np.ndarray) -> None:
        chunks.append(events)
        if len(chunks) in (1, 5):
            sent_before.append(len(read_topic(kafka_bootstrap, names.engagements)))

    config = ReplayConfig(KafkaConfig(kafka_bootstrap), names, FixedRate(2000), InjectConfig(0.1, 0.1, 0.1), False)
    report = run_replay(config, log[:500], before_send=before_send)
    seen = np.concatenate(chunks)
    assert sorted(seen.tolist()) == list(range(500))
    assert (np.diff(seen) < 0).any(), "late events come in the order of sending"
    assert sent_before[0] == 0
    assert sent_before[1] <= sum(map(len, chunks[:4])) * 1.5
    assert max(map(len, chunks)) <= 20, "small chunks, also after the slow hook"
    messages = read_topic(kafka_bootstrap, names.engagements)
    assert {key for _, key, _ in messages} == {None}
    assert len(messages) == report.messages_sent == 600


@pytest.mark.parametrize("how", ["event", "signal"])
def test_a_stop_ends_early_with_an_honest_report(how: str, kafka_bootstrap: str, names: Names, log: EventLog) -> None:
    stop = threading.Event()

    def before_send(events: np.ndarray) -> None:
        if events[0] >= 300:
            if how == "event":
                stop.set()
            else:
                signal.raise_signal(signal.SIGINT)

    config = ReplayConfig(KafkaConfig(kafka_bootstrap), names, FixedRate(2000))
    report = run_replay(config, log, before_send=before_send, stop=stop)
    assert report.stopped
    assert 0 < report.events_sent <= 310, "the chunk whose hook stopped it is not sent"
    assert len(read_topic(kafka_bootstrap, names.engagements)) == report.events_sent
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_empty_log_sends_nothing(kafka_bootstrap: str, names: Names, log: EventLog) -> None:
    report = run_replay(ReplayConfig(KafkaConfig(kafka_bootstrap), names), log[:0])
    assert (report.messages_sent, report.first_ms, report.events_per_s) == (0, 0, 0.0)


def test_a_missing_topic_is_named(kafka_bootstrap: str, log: EventLog) -> None:
    names = Names("nowhere")
    with pytest.raises(TopicError, match=r"nowhere\.engagements.*topics create"):
        run_replay(ReplayConfig(KafkaConfig(kafka_bootstrap), names), log)


def test_a_message_that_kafka_refuses_is_an_error(kafka_bootstrap: str, prefix: str, log: EventLog) -> None:
    names = Names(prefix)
    make_topic(kafka_bootstrap, names.engagements, max_message_bytes="150", compression_type="uncompressed")
    config = ReplayConfig(KafkaConfig(kafka_bootstrap), names, delivery_timeout_s=10)
    with pytest.raises(SlipstreamError, match=r"could not be delivered.*too large"):
        run_replay(config, log)


def test_no_kafka_is_an_error(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.sender.REQUEST_TIMEOUT_S", 0.5)
    with pytest.raises(UnavailableError, match="is Kafka running"):
        run_replay(ReplayConfig(KafkaConfig("127.0.0.1:1")), log)


def test_a_broker_that_dies_and_comes_back_costs_time_alone(log: EventLog, tmp_path: Path) -> None:
    """kill -9 in the middle: everything is delivered, and nothing twice (idempotent producer)."""
    with running(tmp_path) as stack:
        names = Names()
        make_topic(stack.kafka_bootstrap, names.engagements)

        def kill_and_restart() -> None:
            stop_part(stack.data_dir, "kafka", kill=True)
            start_part(stack.data_dir, "kafka")

        restart = threading.Thread(target=kill_and_restart)

        def before_send(events: np.ndarray) -> None:
            if events[0] >= 500 and restart.ident is None:
                restart.start()

        config = ReplayConfig(KafkaConfig(stack.kafka_bootstrap), names, FixedRate(500))
        report = run_replay(config, log, before_send=before_send)
        restart.join()
        assert report.events_sent == len(log)
        messages = read_topic(stack.kafka_bootstrap, names.engagements)
        events = Counter(Parser(ParserConfig()).parse(value, report.last_ms) for _, _, value in messages)
        assert events == expected_events(log)
