"""What Kafka tells a watcher: ends of topics, offsets of groups, the newest records. Nothing is committed, nobody joins a group.

A look costs one request for the ends, one for each stage's group, and at most `_MOST` records of the changelog and of the dead
letters; its clients stay connected between looks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaException, TopicPartition

from edge.kafka import REQUEST_TIMEOUT_S, Admin, KafkaConfig, make, mapped, topic_id
from edge.process import in_time
from schemas.errors import TopicError
from schemas.names import Names
from slipstream.watch.figures import Letter, Offsets, lag_of, letter_of
from slipstream.watch.freshness import Seen
from slipstream.watch.tail import Tail
from stream.letters import as_letter
from stream.offsets import end_offsets, start_offsets
from stream.topics import partition_counts

#: Records of a topic that one look reads at most.
_MOST = 200
#: Offsets before a topic's end at which the reading begins: markers of transactions take some of them.
_BACK = 10
_LETTERS_SHOWN = 20


class KafkaLook(NamedTuple):
    """
    Attributes:
        moved: by stage what its group has committed; `arriving`: the ends of the raw topic.
        lags: by stage.
        seen: records of the changelog that were written since the watch began, not necessarily all.
        topic_id: of the changelog.
        letters_total: in the topic now.
        letters_new: of them, those since the watch began.
        letters: the newest, newest first.
    """

    moved: Mapping[str, Offsets]
    lags: Mapping[str, int]
    seen: list[Seen]
    topic_id: bytes
    letters_total: int
    letters_new: int
    letters: list[Letter]


class KafkaSource:
    """Looks at one deployment's topics and groups. One thread."""

    def __init__(self, kafka: KafkaConfig, names: Names) -> None:
        self._kafka, self._names = kafka, names
        self._admin = Admin(kafka)
        self._letters_began: Offsets | None = None
        self._known: _Known | None = None

    def look(self, model_id: str | None) -> KafkaLook:
        """
        Args:
            model_id: whose encoders are the stage `encode`; None: it is left out.

        Raises:
            TopicError, UnavailableError, ConfigError: topics are missing; Kafka does not answer, or refuses.
        """
        try:
            known = self._known = self._known or self._learn()
            ends = end_offsets(self._admin, known.partitions)
            if known.is_of_before(ends):
                raise TopicError(f"topics of {self._names.prefix} were made anew: looking at them from the beginning")
            return self._look(known, ends, model_id)
        except BaseException:
            self.close()  # clients that saw a broker go may never find a group's coordinator again
            self._admin = Admin(self._kafka)
            raise

    def close(self) -> None:
        known, self._known = self._known, None
        if known is not None:
            known.close()

    def _learn(self) -> _Known:
        names = self._names
        topics = [names.engagements, names.batches, names.sequences, names.dead_letters]
        counts = partition_counts(self._admin, topics)
        if missing := [topic for topic in topics if topic not in counts]:
            raise TopicError(
                f"{self._kafka.bootstrap_servers} has no topic {missing[0]}: run `slipstream topics create`, or correct `prefix`"
            )
        ends = end_offsets(self._admin, [(topic, p) for topic in topics for p in range(counts[topic])])
        if self._letters_began is None:
            self._letters_began = _of_topic(ends, names.dead_letters)
        return _Known(self._kafka, names, ends, topic_id(self._kafka, names.sequences))

    def _look(self, known: _Known, ends: Offsets, model_id: str | None) -> KafkaLook:
        names = self._names
        records = known.changelog.look(_partitions(ends, names.sequences))
        known.bury([letter_of(as_letter(r)) for r in known.letters.look(_partitions(ends, names.dead_letters))])
        stages = {
            "ingest": (names.engagements, names.ingest_group),
            "sequence": (names.batches, names.sequence_app),
        }
        if model_id is not None:
            stages["encode"] = (names.sequences, names.encoder_group(model_id))
        moved = {"arriving": _of_topic(ends, names.engagements)}
        lags = {}
        for stage, (topic, group) in stages.items():
            own = _of_topic(ends, topic)
            moved[stage] = known.committed(group, own)
            lags[stage] = lag_of(own, moved[stage], known.changelog.seen)
        letters = _of_topic(ends, names.dead_letters)
        began = self._letters_began or {}
        return KafkaLook(
            moved,
            lags,
            [
                Seen(r.key, r.partition, r.offset, r.timestamp_ms)
                for r in records
                if r.key and r.value and r.offset >= known.changelog.begins[r.partition]
            ],
            known.topic_id,
            sum(letters.values()) - known.letters_start(self._admin, letters),
            sum(max(0, end - began.get(where, 0)) for where, end in letters.items()),
            list(known.newest_letters),
        )


class _Known:
    """The clients, and what does not change between looks."""

    def __init__(self, kafka: KafkaConfig, names: Names, ends: Offsets, changelog_id: bytes) -> None:
        self._kafka = kafka
        self.topic_id = changelog_id
        self.partitions = list(ends)
        self.changelog = Tail(kafka, names.sequences, _partitions(ends, names.sequences), _BACK, _MOST)
        self.letters = Tail(kafka, names.dead_letters, _partitions(ends, names.dead_letters), _BACK, _MOST)
        self.newest_letters: deque[Letter] = deque(maxlen=_LETTERS_SHOWN)
        self._groups: dict[str, Consumer] = {}
        self._letters_at: Offsets = {}
        self._letters_start = 0

    def is_of_before(self, ends: Offsets) -> bool:
        """A topic ends before what was read of it: it was deleted and made again."""
        seen = self.changelog.seen | self.letters.seen
        return any(ends[where] < records.passed for where, records in seen.items())

    def bury(self, letters: list[Letter]) -> None:
        self.newest_letters.extendleft(sorted(letters, key=lambda letter: letter.buried_ms))

    def committed(self, group: str, partitions: Offsets) -> Offsets:
        """As stream.group_offsets.committed_offsets, by a client that stays."""
        if group not in self._groups:
            settings = self._kafka.client(group_id=group, enable_auto_commit=False)
            self._groups[group] = make(Consumer, settings, self._kafka)
        asked = [TopicPartition(topic, partition) for topic, partition in partitions]
        try:
            found = self._groups[group].committed(asked, timeout=REQUEST_TIMEOUT_S)
        except KafkaException as error:
            raise mapped(error, f"Kafka at {self._kafka.bootstrap_servers}, offsets of group {group}") from None
        return {(p.topic, p.partition): p.offset for p in found if p.error is None and p.offset >= 0}

    def letters_start(self, admin: Admin, ends: Offsets) -> int:
        """The sum of the offsets at which the dead letters begin; asked for when letters came, for they go seldom."""
        if ends != self._letters_at:
            self._letters_at, self._letters_start = ends, sum(start_offsets(admin, ends).values())
        return self._letters_start

    def close(self) -> None:
        for close in (self.changelog.close, self.letters.close, *(client.close for client in self._groups.values())):
            in_time(REQUEST_TIMEOUT_S, close)


def _of_topic(offsets: Offsets, topic: str) -> Offsets:
    return {where: offset for where, offset in offsets.items() if where[0] == topic}


def _partitions(offsets: Offsets, topic: str) -> dict[int, int]:
    return {where[1]: offset for where, offset in offsets.items() if where[0] == topic}
