"""The oracle: every sequence rebuilt from the raw topic, slowly and plainly, to judge what the stages wrote.

It shares no code with ingest and the sequence stage but the partitioner: decoders of its own (stream.oracle_formats), its own
reading of the rules (stream.oracle_rules) and of the layout that schemas/sequence.py draws, sets and `sorted`.

    rebuilt = rebuild(read_raw(...), rules)          what every sequence must be
    changelog = read_sequences(...)                  what it is
    mismatches = compare(rebuilt, changelog)         [] if all is well

Judge when the stages have caught up, or what is still under way is a mismatch.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from edge.kafka import KafkaConfig
from schemas.event import ParserConfig
from schemas.names import Names
from schemas.sequence import DEFAULT_CAPACITY
from stream.oracle_formats import UnreadableError
from stream.oracle_rules import Row, read_message
from stream.partitioner import partitions_of
from stream.registry import framed_value
from stream.whole_topic import OnProgress, Record, partitions_in, read_whole, require_whole


class Unreadable(NamedTuple):
    """A raw message that must be in the dead letters."""

    partition: int
    offset: int
    why: str


@dataclass
class Rebuilt:
    """What every sequence must be.

    Attributes:
        sequences: user -> (forgotten_before_ms, its newest events, sorted).
        messages: raw messages read.
        unreadable: those that are no event and no forget request.
    """

    sequences: dict[bytes, tuple[int, list[Row]]] = field(default_factory=dict)
    messages: int = 0
    unreadable: list[Unreadable] = field(default_factory=list)


class Found(NamedTuple):
    """A changelog value, where it is, and until when every event that reached the broker is in it (Unix ms)."""

    value: bytes
    partition: int
    offset: int
    arrived_ms: int


@dataclass
class Changelog:
    """The compacted changelog, read committed.

    Attributes:
        partitions: of the topic.
        sequences: user -> its newest value. Users with a tombstone are not here.
        misplaced: (user, partition, offset) of values that are not in the user's partition.
        keyless: (partition, offset) of values without a key.
    """

    partitions: int
    sequences: dict[bytes, Found] = field(default_factory=dict)
    misplaced: list[tuple[bytes, int, int]] = field(default_factory=list)
    keyless: list[tuple[int, int]] = field(default_factory=list)


class Mismatch(NamedTuple):
    """A sequence that is not what it must be. `user` is empty where there is none."""

    user: bytes
    what: str


def read_raw(kafka: KafkaConfig, names: Names, on_progress: OnProgress | None = None) -> Iterator[Record]:
    """Every message of `engagements`, from the first one ever written to the last one now.

    Raises:
        TopicError: the topic is missing, or no longer holds everything: then no oracle can judge.
        UnavailableError: Kafka does not answer.
    """
    require_whole(kafka, names.engagements)
    yield from chain.from_iterable(read_whole(kafka, names.engagements, on_progress))


def rebuild(
    raw: Iterable[Record],
    rules: ParserConfig,
    capacity: int = DEFAULT_CAPACITY,
    framed: Callable[[bytes], object] | None = None,
) -> Rebuilt:
    """What the sequences must be after these raw messages, in any order. `framed` is as for `read_message`."""
    events: dict[bytes, set[Row]] = {}
    floors: dict[bytes, int] = {}
    rebuilt = Rebuilt()
    for record in raw:
        rebuilt.messages += 1
        try:
            value = framed_value(record.value, record.headers) if framed else record.value
            user, row, forget_ms = read_message(value, record.timestamp_ms, rules, framed)
        except UnreadableError as error:
            rebuilt.unreadable.append(Unreadable(record.partition, record.offset, str(error)))
            continue
        of_user = events.setdefault(user, set())
        if row is not None:
            of_user.add(row)
        floors[user] = max(floors.get(user, 0), forget_ms)
    for user, rows in events.items():
        kept = sorted(row for row in rows if row[0] > floors[user])
        rebuilt.sequences[user] = (floors[user], kept[-capacity:])
    return rebuilt


def read_sequences(kafka: KafkaConfig, names: Names, on_progress: OnProgress | None = None) -> Changelog:
    """The newest value of every user in the changelog.

    Raises:
        TopicError, UnavailableError: the topic is missing, or Kafka does not answer.
    """
    changelog = Changelog(partitions_in(kafka, names.sequences))
    for records in read_whole(kafka, names.sequences, on_progress):
        collect(changelog, records)
    return changelog


def collect(changelog: Changelog, records: list[Record]) -> None:
    """Apply changelog records, in the order of their partitions."""
    keys = [record.key or b"" for record in records]
    homes = partitions_of(keys, changelog.partitions).tolist()
    for key, home, record in zip(keys, homes, records, strict=True):
        if not key:
            changelog.keyless.append((record.partition, record.offset))
        elif record.partition != home:
            changelog.misplaced.append((key, record.partition, record.offset))
        elif record.value is None:
            changelog.sequences.pop(key, None)
        else:
            changelog.sequences[key] = Found(record.value, record.partition, record.offset, record.timestamp_ms)


def compare(rebuilt: Rebuilt, changelog: Changelog, topic: str = "sequences") -> list[Mismatch]:
    """Every sequence that is not, byte for byte, what it must be. `topic` is for the messages."""
    mismatches = [
        Mismatch(b"", f"{topic}[{partition}]@{offset}: a value without a user")
        for partition, offset in changelog.keyless
    ]
    mismatches += [
        Mismatch(user, f"{topic}[{partition}]@{offset}: not the user's partition")
        for user, partition, offset in changelog.misplaced
    ]
    for user, (floor, rows) in rebuilt.sequences.items():
        found = changelog.sequences.get(user)
        if found is None:
            what = f"missing, with {len(rows)} events" + (f" and the floor {floor}" if floor else "")
            mismatches.append(Mismatch(user, f"{topic}: {what}"))
        elif found.value != encode(floor, rows):
            where = f"{topic}[{found.partition}]@{found.offset}"
            mismatches.append(Mismatch(user, f"{where}: {_difference(found.value, floor, rows)}"))
    for user in changelog.sequences.keys() - rebuilt.sequences.keys():
        found = changelog.sequences[user]
        what = "no raw message names this user"
        mismatches.append(Mismatch(user, f"{topic}[{found.partition}]@{found.offset}: {what}"))
    return mismatches


_HEADER = struct.Struct("<2sBBI")  # magic, version, 0, crc of the rest: floor i64, then records


def encode(floor: int, rows: list[Row]) -> bytes:
    """The bytes that a sequence must have (schemas/sequence.py draws them)."""
    body = struct.pack("<q" + "qqHH" * len(rows), floor, *chain.from_iterable(rows))
    return _HEADER.pack(b"SQ", 1, 0, zlib.crc32(body)) + body


def decode(value: bytes) -> tuple[int, list[Row]] | None:
    """Floor and events of a sequence's bytes, None if they are damaged."""
    if len(value) < 16 or (len(value) - 16) % 20 or _HEADER.pack(b"SQ", 1, 0, zlib.crc32(value[8:])) != value[:8]:
        return None
    (floor,) = struct.unpack_from("<q", value, 8)
    return floor, list(struct.iter_unpack("<qqHH", value[16:]))


def _difference(value: bytes, floor: int, rows: list[Row]) -> str:
    decoded = decode(value)
    if decoded is None:
        return "damaged"
    found_floor, found_rows = decoded
    said = []
    if found_floor != floor:
        said.append(f"the floor is {found_floor}, not {floor}")
    for what, some in (("lacks", set(rows) - set(found_rows)), ("should not have", set(found_rows) - set(rows))):
        if some:
            said.append(f"{what} {len(some)} of its {len(rows)} events, the newest is {max(some)}")
    return "; ".join(said) or "its events are not sorted or not distinct"
