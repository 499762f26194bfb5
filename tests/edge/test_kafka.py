"""Run: pytest tests/edge/test_kafka.py"""

from __future__ import annotations

import re

import pytest
from confluent_kafka import KafkaError, KafkaException

from edge.kafka import MASK, Admin, KafkaConfig, mapped
from schemas.errors import ConfigError, FencedError, SlipstreamError, TopicError, UnavailableError
from schemas.names import Names
from stream.ingest import IngestConfig
from stream.sequence import SequenceConfig, run_sequence

SECRETS = {
    "sasl.username": "me",
    "sasl.password": "hunter2",
    "ssl.key.password": "hunter2",
    "ssl.keystore.password": "hunter2",
    "sasl.oauthbearer.client.secret": "hunter2",
    "ssl.key.pem": "hunter2",
    "sasl.oauthbearer.config": "hunter2",
}


def test_secrets_are_never_printed() -> None:
    config = KafkaConfig("broker:9092", SECRETS)
    for text in (repr(config), str(config), repr(IngestConfig(config)), repr(SequenceConfig(config))):
        assert "hunter2" not in text
        assert MASK in text
        assert "'me'" in text


def test_options_reach_every_client_and_ours_win() -> None:
    config = KafkaConfig("b:1", {"security.protocol": "SASL_SSL", "group.id": "theirs", "bootstrap.servers": "x"})
    client = config.client(group_id="ours", error_cb=print)
    assert client["security.protocol"] == "SASL_SSL"
    assert client["group.id"] == "ours"
    assert client["error_cb"] is print
    assert client["bootstrap.servers"] == "b:1"


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(ConfigError, match=r"foo\.bar"):
        Admin(KafkaConfig("b:1", {"foo.bar": "1"}))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (KafkaError._FENCED, FencedError),
        (KafkaError.INVALID_PRODUCER_EPOCH, FencedError),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, TopicError),
        (KafkaError.MSG_SIZE_TOO_LARGE, TopicError),
        (KafkaError._ALL_BROKERS_DOWN, UnavailableError),
        (KafkaError._MSG_TIMED_OUT, UnavailableError),
        (KafkaError.FENCED_LEADER_EPOCH, UnavailableError),
        (KafkaError.COORDINATOR_LOAD_IN_PROGRESS, UnavailableError),
        (KafkaError._AUTHENTICATION, ConfigError),
        (KafkaError._SSL, ConfigError),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, ConfigError),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, TopicError),
        (KafkaError.INVALID_CONFIG, SlipstreamError),
    ],
)
def test_foreign_errors(code: int, expected: type[SlipstreamError]) -> None:
    for error in (KafkaError(code, "why"), KafkaException(KafkaError(code, "why"))):
        found = mapped(error, "topic x, partition 3")
        assert type(found) is expected
        assert re.match("topic x, partition 3: .*why", str(found))


@pytest.mark.parametrize(
    "wrong", [{"max_batch_bytes": 1 << 20}, {"max_batch_bytes": 10}, {"linger_ms": -1.0}, {"max_poll_messages": 0}]
)
def test_ingest_config_refuses(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        IngestConfig(KafkaConfig("b:1"), **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("capacity", [0, -1, 1 << 17])
def test_sequence_config_refuses(capacity: int) -> None:
    with pytest.raises(ConfigError, match="capacity"):
        SequenceConfig(KafkaConfig("b:1"), Names(), capacity=capacity)


def test_no_broker_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.kafka.REQUEST_TIMEOUT_S", 1.0)
    config = KafkaConfig("127.0.0.1:1")
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1 .*refused.*address right"):
        run_sequence(SequenceConfig(config))
