"""Every kind of bad input (tests/bad_input.py) through real workers, interleaved with good events. One deployment per policy for
unknown names; each kind must be in the dead letters once, untouched, and the good events in the sequences.

Run: pytest tests/integration/test_bad_input.py
"""

from __future__ import annotations

import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import Message, Producer
from prometheus_client.parser import text_string_to_metric_families

from schemas.event import ParserConfig, encode_engagement
from slipstream.stack.process import free_port
from stream.dead_letters import DeadLetterHeaders
from stream.oracle import Mismatch, Rebuilt, decode, read_raw, read_sequences, rebuild
from tests.bad_input import MAX_AGE_MS, UNKNOWN_NAMES, bad_batches, bad_sequences, odd_but_good, raw_kinds
from tests.integration.streaming import PARTITIONS, Deployment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

POLICIES = ("reject", "other")
HEADERS: list[tuple[str, bytes | None]] = [("trace", b"\x00\xff"), ("trace", None), ("", b"")]
GOOD_PER_KIND = 3


@dataclass(frozen=True)
class Sent:
    """A message and where it stands."""

    value: bytes | None
    topic: str
    partition: int
    offset: int
    headers: list[tuple[str, bytes | None]]


@dataclass(frozen=True)
class Outcome:
    """What came of one deployment's messages.

    Attributes:
        sent: the bad ones, by key.
        letters: dead letters by the key of their message.
        counted: stage -> reason -> what the worker's metrics say.
        arrived: user -> item ids in the sequence.
        good: user -> how many of its events are good.
    """

    rules: ParserConfig
    sent: Mapping[bytes, Sent]
    letters: Mapping[bytes, list[tuple[Message, DeadLetterHeaders]]]
    counted: Mapping[str, Mapping[str, float]]
    arrived: Mapping[bytes, list[int]]
    good: Mapping[bytes, int]
    mismatches: list[Mismatch]
    rebuilt: Rebuilt
    arrival_ms: Mapping[tuple[str, int, int], int]

    def expects_letter(self, reason: str) -> bool:
        return self.rules.unknown_names == "reject" or reason not in UNKNOWN_NAMES

    def check_letter(self, key: bytes, reason: str, headers: list[tuple[str, bytes | None]]) -> None:
        ((message, said),) = self.letters[key]
        sent = self.sent[key]
        assert message.value() == sent.value
        assert message.key() == key
        assert said.original == headers
        assert said.reason == reason
        assert said.error
        assert said.provenance[:3] == (sent.topic, sent.partition, sent.offset)
        assert said.provenance.timestamp_ms == self.arrival_ms[said.provenance[:3]]
        assert (said.replays, said.missing_value_bytes) == (0, None)


class Feed:
    """Sends bad messages, each under its own key, and remembers where they stand."""

    def __init__(self, deployment: Deployment) -> None:
        self.sent: dict[bytes, Sent] = {}
        self._producer = Producer(
            {
                "bootstrap.servers": deployment.kafka.bootstrap_servers,
                "message.max.bytes": 12 << 20,
                "partitioner": "murmur2_random",
                "log_level": 0,
            }
        )

    def send(self, topic: str, key: bytes, value: bytes | None, headers: Any = HEADERS, **more: Any) -> None:
        def on_delivery(error: Any, message: Message) -> None:
            assert error is None, error
            self.sent[key] = Sent(value, topic, message.partition() or 0, message.offset() or 0, headers)

        self._producer.produce(topic, value, key, headers=headers, on_delivery=on_delivery, **more)

    def good(self, topic: str, value: bytes) -> None:
        self._producer.produce(topic, value)

    def flush(self) -> None:
        assert self._producer.flush(30) == 0


def key_of(kind: str) -> bytes:
    return b"\xff" + kind.encode()


def dead_letters_counted(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {
        sample.labels["reason"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name.endswith("_dead_letters_total") and sample.value
    }


def run(deployment: Deployment, rules: ParserConfig) -> Outcome:
    names, now_ms = deployment.names, int(time.time() * 1000)
    feed = Feed(deployment)
    for user, value in bad_sequences().items():
        feed.send(names.sequences, user.encode(), value, headers=[])
    feed.flush()

    odd = list(odd_but_good("odd", now_ms).values())
    good: Counter[bytes] = Counter({b"odd": len(odd)})
    for value in odd:
        feed.good(names.engagements, value)

    def send_good(n: int) -> None:
        for _ in range(n):
            user = f"good-{good.total() % 40}"
            feed.good(names.engagements, encode_engagement(user, good.total(), "save", "home", now_ms - good.total()))
            good[user.encode()] += 1

    for user in bad_sequences():  # what is damaged is replaced by the user's next event
        feed.good(names.engagements, encode_engagement(user, 1, "save", "home", now_ms))
        good[user.encode()] += 1
    for i, (kind, (value, _)) in enumerate(raw_kinds(now_ms).items()):
        send_good(GOOD_PER_KIND)
        feed.send(names.engagements, key_of(kind), value, partition=i % PARTITIONS)
    feed.flush()
    ports = {"ingest": free_port()}
    ports["sequence"] = free_port([ports["ingest"]])
    parser = {"unknown_names": rules.unknown_names, "max_age_ms": rules.max_age_ms}
    deployment.start("ingest", metrics_port=ports["ingest"], parser=parser)
    deployment.start("sequence", metrics_port=ports["sequence"])
    for i, (kind, value) in enumerate(bad_batches().items()):
        send_good(GOOD_PER_KIND)
        feed.send(names.batches, key_of(kind), value, partition=i % PARTITIONS)
        feed.flush()
    send_good(GOOD_PER_KIND)
    feed.flush()
    deployment.drain()

    letters: dict[bytes, list[tuple[Message, DeadLetterHeaders]]] = {}
    for message, said in deployment.dead_letters():
        letters.setdefault(message.key() or b"", []).append((message, said))
    arrived = {}
    for user, found in read_sequences(deployment.kafka, names).sequences.items():
        decoded = decode(found.value)
        assert decoded is not None
        arrived[user] = [row[1] for row in decoded[1]]
    return Outcome(
        rules,
        feed.sent,
        letters,
        {stage: dead_letters_counted(port) for stage, port in ports.items()},
        arrived,
        good,
        deployment.mismatches(rules=rules),
        rebuild(read_raw(deployment.kafka, names), rules),
        {
            (m.topic() or "", m.partition() or 0, m.offset() or 0): m.timestamp()[1]
            for topic in (names.engagements, names.batches, names.sequences)
            for m in deployment.read(topic)
        },
    )


@pytest.fixture(scope="module", params=POLICIES)
def outcome(
    request: pytest.FixtureRequest, kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outcome]:
    prefix = f"t{uuid.uuid4().hex[:8]}"
    with Deployment(kafka_bootstrap, prefix, tmp_path_factory.mktemp("bad-input")) as deployment:
        yield run(deployment, ParserConfig(unknown_names=request.param, max_age_ms=MAX_AGE_MS))


RAW = {kind: reason for kind, (_, reason) in raw_kinds(0).items()}


@pytest.mark.parametrize("kind", RAW)
def test_a_bad_raw_message_is_in_the_dead_letters_once_and_untouched(outcome: Outcome, kind: str) -> None:
    if outcome.expects_letter(RAW[kind]):
        outcome.check_letter(key_of(kind), RAW[kind], HEADERS)
    else:
        assert key_of(kind) not in outcome.letters
        assert outcome.arrived[b"bad"], "it became an event with the code of `other`"


@pytest.mark.parametrize("kind", bad_batches())
def test_a_bad_batch_is_in_the_dead_letters_once_and_untouched(outcome: Outcome, kind: str) -> None:
    outcome.check_letter(key_of(kind), "bad_batch", HEADERS)


def test_a_batch_of_a_newer_version_says_what_to_do(outcome: Outcome) -> None:
    ((_, said),) = outcome.letters[key_of("batch of a newer version")]
    assert "batch version 2, this build reads 1: upgrade the sequence workers first" in said.error


@pytest.mark.parametrize("kind", bad_sequences())
def test_a_damaged_changelog_record_is_in_the_dead_letters_once_and_untouched(outcome: Outcome, kind: str) -> None:
    outcome.check_letter(kind.encode(), "bad_sequence", [])


def test_nothing_else_is_in_the_dead_letters(outcome: Outcome) -> None:
    passed = {key_of(kind) for kind, reason in RAW.items() if not outcome.expects_letter(reason)}
    assert outcome.letters.keys() == outcome.sent.keys() - passed
    assert len(outcome.sent) == len(RAW) + len(bad_batches()) + len(bad_sequences())


def test_the_workers_count_them_by_reason(outcome: Outcome) -> None:
    assert outcome.counted == {
        "ingest": Counter(reason for reason in RAW.values() if outcome.expects_letter(reason)),
        "sequence": {"bad_batch": len(bad_batches()), "bad_sequence": len(bad_sequences())},
    }


def test_every_good_event_has_arrived(outcome: Outcome) -> None:
    arrived = {user: len(items) for user, items in outcome.arrived.items() if user != b"bad"}
    assert arrived == outcome.good


def test_the_oracle_agrees(outcome: Outcome) -> None:
    assert outcome.mismatches == []
    # On each message too: it finds unreadable just what became a dead letter.
    raw = {
        said.provenance[1:3]
        for found in outcome.letters.values()
        for _, said in found
        if said.provenance.topic.endswith(".engagements")
    }
    assert {(u.partition, u.offset) for u in outcome.rebuilt.unreadable} == raw


def test_unknown_names_are_events_only_where_the_policy_says_so(outcome: Outcome) -> None:
    assert (b"bad" in outcome.arrived) == (outcome.rules.unknown_names == "other")
