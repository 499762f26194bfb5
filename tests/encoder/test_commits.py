"""Which offsets are committed when Redis or Kafka objects. Run alone: pytest tests/encoder/test_commits.py"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from confluent_kafka import Consumer, KafkaError, TopicPartition

from edge.kafka import KafkaConfig
from encoder.commits import Commits
from encoder.consumers import SourceConfig


class Sent:
    """In the place of a consumer: notes what is committed."""

    def __init__(self) -> None:
        self.offsets: list[dict[int, int]] = []

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
        self.offsets.append({p.partition: p.offset for p in offsets})


class Rig:
    def __init__(self) -> None:
        self.sent, self.allowed = Sent(), {0, 1}
        self.asked: list[dict[int, int]] = []
        config = SourceConfig(KafkaConfig("localhost:9"), "t", "g", commit_interval_s=0)
        self.commits = Commits(config, lambda partition: None, self._may_commit)

    def _may_commit(self, due: Mapping[int, int]) -> set[int]:
        self.asked.append(dict(due))
        return self.allowed & due.keys()

    def commit(self) -> dict[int, int]:
        """What is committed now."""
        before = len(self.sent.offsets)
        self.commits.commit_if_due(cast(Consumer, self.sent))
        return self.sent.offsets[-1] if len(self.sent.offsets) > before else {}

    def refuse(self, offsets: dict[int, int]) -> None:
        """Kafka's answer to a commit."""
        failed = [TopicPartition("t", partition, offset) for partition, offset in offsets.items()]
        self.commits.answered(KafkaError(KafkaError.NOT_COORDINATOR), failed)


def test_redis_is_asked_also_when_there_is_nothing_to_commit() -> None:
    rig = Rig()
    assert rig.commit() == {}
    assert rig.asked == [{}]


def test_what_may_not_be_committed_waits() -> None:
    rig = Rig()
    rig.allowed = {1}
    rig.commits.done({0: 5, 1: 7})
    assert rig.commit() == {1: 7}
    rig.allowed = {0, 1}
    assert rig.commit() == {0: 5}
    assert rig.commit() == {}


def test_a_refused_commit_comes_again_with_what_is_done_by_then() -> None:
    rig = Rig()
    rig.commits.done({0: 5})
    assert rig.commit() == {0: 5}
    rig.commits.done({0: 8})
    assert rig.commit() == {0: 8}
    rig.refuse({0: 5})
    assert rig.commit() == {0: 8}


def test_a_refused_commit_of_what_is_read_again_since_does_not_come_back() -> None:
    """It would say that states are there which Redis lost."""
    rig = Rig()
    rig.commits.done({0: 50})
    assert rig.commit() == {0: 50}
    rig.commits.forget([0])
    rig.refuse({0: 50})
    assert rig.commit() == {}
    rig.commits.done({0: 10})
    rig.refuse({0: 50})
    assert rig.commit() == {0: 10}


def test_live_offsets_are_held_back_until_the_past_is_done() -> None:
    rig = Rig()
    rig.commits.hold(0, 90)
    rig.commits.done({0: 20})
    assert rig.commit() == {0: 20}
    rig.commits.done({0: 60})
    rig.commits.release(0)
    assert rig.commit() == {0: 90}
