"""The dead letters topic, read: every letter with its place in the topic and what its headers say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from edge.kafka import Admin, KafkaConfig
from schemas.errors import ConfigError
from schemas.names import Names
from stream.dead_letters import DeadLetterHeaders, Headers, read_dead_letter_headers
from stream.offsets import end_offsets, offsets_since, start_offsets
from stream.whole_topic import OnProgress, Record, partitions_in, read_spans

Spans = Mapping[int, tuple[int, int]]
"""partition -> offsets [start, end)."""

#: The reason shown for a message of the dead letters topic that is none of ours.
FOREIGN = "(not a dead letter)"


class Place(NamedTuple):
    """Where a letter is in the dead letters topic, written `partition:offset`."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """
        Raises:
            ConfigError: it is not `partition:offset`.
        """
        found = re.fullmatch(r"(\d{1,9}):(\d{1,18})", text, re.ASCII)
        if found is None:
            raise ConfigError(
                f"{text!r} is no place of a dead letter, which is PARTITION:OFFSET, as `slipstream dead-letters list` prints it"
            )
        return cls(int(found[1]), int(found[2]))


class DeadLetter(NamedTuple):
    """A message of the dead letters topic.

    Attributes:
        buried_ms: Kafka's timestamp of the letter, Unix ms.
        key, value: of the message itself, untouched.
        headers: all of the letter's.
        said: what they say; None if somebody else wrote the message here.
    """

    place: Place
    buried_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    said: DeadLetterHeaders | None

    @property
    def reason(self) -> str:
        return self.said.reason if self.said else FOREIGN


def all_letters(kafka: KafkaConfig, names: Names, since_ms: int | None = None, until_ms: int | None = None) -> Spans:
    """Where the letters are that are there now; with `since_ms` and `until_ms` those of [since, until) by Kafka's index of times.

    Where the topic has producers' timestamps (not LogAppendTime), a span may hold letters of other times too.

    Raises:
        TopicError, UnavailableError: the topic is missing, or Kafka does not answer.
    """
    admin = Admin(kafka)
    wanted = [(names.dead_letters, partition) for partition in range(partitions_in(kafka, names.dead_letters))]
    starts = start_offsets(admin, wanted) if since_ms is None else offsets_since(admin, wanted, since_ms)
    ends = (
        end_offsets(admin, wanted, committed_only=True) if until_ms is None else offsets_since(admin, wanted, until_ms)
    )
    return {where[1]: (starts[where], ends[where]) for where in wanted}


def read_letters(
    kafka: KafkaConfig, names: Names, spans: Spans, on_progress: OnProgress | None = None
) -> Iterator[list[DeadLetter]]:
    """The letters of these spans, in chunks; each partition in order.

    Raises:
        TopicError: the topic is missing, or letters were dropped while they were read.
        UnavailableError: Kafka does not answer.
    """
    for records in read_spans(kafka, names.dead_letters, spans, on_progress):
        yield [as_letter(record) for record in records]


def read_letter(kafka: KafkaConfig, names: Names, place: Place) -> DeadLetter:
    """One letter.

    Raises:
        ConfigError: there is none at that place.
        TopicError, UnavailableError: the topic is missing, or Kafka does not answer.
    """
    spans = all_letters(kafka, names)
    start, end = spans.get(place.partition, (0, 0))
    if start <= place.offset < end:
        for letters in read_letters(kafka, names, {place.partition: (place.offset, place.offset + 1)}):
            return letters[0]
    where = f"partition {place.partition} of topic {names.dead_letters}"
    if place.partition not in spans:
        why = f"topic {names.dead_letters} has partitions 0 to {len(spans) - 1}"
    elif place.offset < start:
        why = f"{where} begins at offset {start}: the letter was dropped, or its retention has passed"
    elif place.offset >= end:
        why = f"{where} ends before offset {end}"
    else:
        why = f"at that offset {where} has a transaction's marker"
    raise ConfigError(f"no dead letter at {place}: {why}; `slipstream dead-letters list` shows those that there are")


def as_letter(record: Record) -> DeadLetter:
    headers = list(record.headers)
    place = Place(record.partition, record.offset)
    said = read_dead_letter_headers(headers)
    return DeadLetter(place, record.timestamp_ms, record.key, record.value, headers, said)
