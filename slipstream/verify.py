"""`slipstream verify`: every sequence against the raw topic, every state against its sequence and a from-scratch encoding.

Ask when the stages have caught up: what is under way looks like a mismatch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from edge.kafka import KafkaConfig, topic_id
from encoder.bundle import Bundle
from encoder.oracle import Claim, check_states
from encoder.runtime import Runtime, RuntimeConfig
from encoder.store import StateStore
from schemas.errors import SequenceError, TopicError
from schemas.event import ParserConfig
from schemas.names import Names
from schemas.sequence import DEFAULT_CAPACITY, decode_sequence
from schemas.state import Fence
from stream.oracle import Changelog, compare, read_raw, read_sequences, rebuild

_LOAD_AT_ONCE = 256


class Wrong(NamedTuple):
    """A user whose sequence or state is not what it must be."""

    user: str
    what: str


@dataclass
class VerifyReport:
    """What was checked, and what is wrong.

    Attributes:
        users: with a sequence in the changelog.
        unreadable: raw messages that must be in the dead letters; None if the raw topic no longer holds everything, so that
            sequences could not be checked against it (`note` says so).
        mismatches: at most one per sequence and one per state.
    """

    users: int = 0
    sequences_checked: int = 0
    sequences_mismatched: int = 0
    states_checked: int = 0
    states_mismatched: int = 0
    unreadable: int | None = None
    note: str = ""
    mismatches: list[Wrong] = field(default_factory=list)


def verify(
    kafka: KafkaConfig,
    names: Names,
    bundle: Bundle,
    store: StateStore,
    rules: ParserConfig,
    sample: int | None = None,
    seed: int = 0,
    notify: Callable[[str], None] = lambda text: None,
    framed: Callable[[bytes], object] | None = None,
    capacity: int = DEFAULT_CAPACITY,
) -> VerifyReport:
    """Check all sequences, and the states of all users or of a random sample.

    Args:
        rules: what ingest accepts; other rules give other sequences.
        framed: decodes Avro and Protobuf (stream.registry.framed_oracle), if ingest accepts them.
        capacity: of the sequence stage.
        sample: users whose states are checked; None = all.

    Raises:
        TopicError, UnavailableError: a topic is not there, or Kafka or Redis does not answer.
    """
    report = VerifyReport()
    changelog = read_sequences(kafka, names)
    report.users = len(changelog.sequences)
    _check_sequences(report, kafka, names, changelog, rules, framed, capacity)
    notify(
        f"  {report.sequences_checked:,} sequences checked against the raw topic, {report.sequences_mismatched} wrong"
    )
    users = sorted(changelog.sequences)
    if sample is not None and sample < len(users):
        users = sorted(random.Random(seed).sample(users, sample))
    _check_states(report, bundle, store, changelog, users, topic_id(kafka, names.sequences))
    notify(f"  {report.states_checked:,} states checked against fresh encodings, {report.states_mismatched} wrong")
    return report


def _check_sequences(
    report: VerifyReport,
    kafka: KafkaConfig,
    names: Names,
    changelog: Changelog,
    rules: ParserConfig,
    framed: Callable[[bytes], object] | None,
    capacity: int,
) -> None:
    try:
        rebuilt = rebuild(read_raw(kafka, names), rules, capacity, framed=framed)
    except TopicError as error:
        report.note = f"sequences were not checked against the raw topic: {error}"
        return
    wrong = compare(rebuilt, changelog, names.sequences)
    report.unreadable = len(rebuilt.unreadable)
    report.sequences_checked = len(rebuilt.sequences)
    report.sequences_mismatched = len(wrong)
    report.mismatches += [Wrong(mismatch.user.decode(errors="replace"), mismatch.what) for mismatch in wrong]


def _check_states(
    report: VerifyReport, bundle: Bundle, store: StateStore, changelog: Changelog, users: Sequence[bytes], topic: bytes
) -> None:
    runtime = Runtime(bundle, RuntimeConfig(graphs=("encode", "append")))
    wrong = check_states(runtime, bundle.features, bundle.layout, _claims(report, store, changelog, users, topic))
    report.states_checked = len(users)
    report.mismatches += [Wrong(mismatch.user.decode(errors="replace"), mismatch.what) for mismatch in wrong]
    report.states_mismatched += len(wrong)


def _claims(
    report: VerifyReport, store: StateStore, changelog: Changelog, users: Sequence[bytes], topic: bytes
) -> Iterator[Claim]:
    remaining = iter(users)
    while some := list(islice(remaining, _LOAD_AT_ONCE)):
        for user, stored in zip(some, store.load(some), strict=True):
            found = changelog.sequences[user]
            where = f"sequences[{found.partition}]@{found.offset}"
            try:
                records = decode_sequence(found.value, where).records
            except SequenceError as error:
                report.states_mismatched += 1
                report.mismatches.append(Wrong(user.decode(errors="replace"), str(error)))
                continue
            yield Claim(user, records, stored, Fence(topic, found.partition, found.offset))
