"""`slipstream verify`: every sequence against the raw topic, every state against its sequence and a from-scratch encoding.

Ask when the stages have caught up: what is under way looks like a mismatch. To repair is to make the states anew that are
wrong, from their sequences, and to check them again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from edge.kafka import KafkaConfig, topic_id
from encoder.bundle import Bundle
from encoder.engine import Update
from encoder.oracle import Claim, Mismatch, Tolerance, check_states
from encoder.refresh import Refresher
from encoder.repair import repair
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
        states_repaired: made anew, and right now; they are not among the mismatches.
        mismatches: at most one per sequence and one per state.
    """

    users: int = 0
    sequences_checked: int = 0
    sequences_mismatched: int = 0
    states_checked: int = 0
    states_mismatched: int = 0
    states_repaired: int = 0
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
    repair_states: bool = False,
    tolerance: Tolerance | None = None,
) -> VerifyReport:
    """Check all sequences, and the states of all users or of a random sample.

    Args:
        rules: what ingest accepts; other rules give other sequences.
        framed: decodes Avro and Protobuf (stream.registry.framed_oracle), if ingest accepts them.
        capacity: of the sequence stage.
        sample: users whose states are checked; None = all.
        repair_states: make those anew that are wrong.
        tolerance: between states and the encoding on this machine's CPU; None: both were made by the same kind of CPU.

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
    states = States(bundle, store, changelog, topic_id(kafka, names.sequences), tolerance)
    wrong = states.check(users)
    if repair_states and wrong:
        notify(f"  {len(wrong):,} states wrong; they are made anew")
        users_wrong = [mismatch.user for mismatch in wrong]
        report.states_repaired, wrong = states.repair(users_wrong, lambda: read_sequences(kafka, names))
    report.states_checked, report.states_mismatched = len(users), len(wrong)
    report.mismatches += [Wrong(mismatch.user.decode(errors="replace"), mismatch.what) for mismatch in wrong]
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


class States:
    """The states of one model, against a changelog that was read."""

    def __init__(
        self, bundle: Bundle, store: StateStore, changelog: Changelog, topic: bytes, tolerance: Tolerance | None
    ) -> None:
        self._store, self._changelog, self._topic, self._tolerance = store, changelog, topic, tolerance
        self._layout, self._features = bundle.layout, bundle.features
        self._runtime = Runtime(bundle, RuntimeConfig(graphs=("encode", "append")))

    def check(self, users: Sequence[bytes]) -> list[Mismatch]:
        """What is wrong, at most one for each user."""
        unreadable: list[Mismatch] = []
        claims = self._claims(users, unreadable)
        wrong = check_states(self._runtime, self._features, self._layout, claims, self._tolerance)
        return unreadable + wrong

    def repair(self, users: Sequence[bytes], read_changelog: Callable[[], Changelog]) -> tuple[int, list[Mismatch]]:
        """Make states anew. Returns how many are right now, and what is still wrong."""
        bases = dict(zip(users, self._store.load(users), strict=True))
        # Read after the states were: whatever an encoder wrote until then comes from a record that is in there.
        self._changelog = read_changelog()
        there = [user for user in users if user in self._changelog.sequences]
        updates = [update for user in there if isinstance(update := self._update(user), Update)]
        refresher = Refresher(self._runtime, self._features, self._layout)
        done = repair(refresher, self._store, [(update, bases[update.user]) for update in updates]).done
        left = self.check(there)
        return len(set(done) - {mismatch.user for mismatch in left}), left

    def _claims(self, users: Sequence[bytes], unreadable: list[Mismatch]) -> Iterator[Claim]:
        remaining = iter(users)
        while some := list(islice(remaining, _LOAD_AT_ONCE)):
            for user, stored in zip(some, self._store.load(some), strict=True):
                update = self._update(user)
                if isinstance(update, Mismatch):
                    unreadable.append(update)
                else:
                    yield Claim(user, update.records, stored, update.fence)

    def _update(self, user: bytes) -> Update | Mismatch:
        """What the changelog holds of a user, as an encoder would take it."""
        found = self._changelog.sequences[user]
        try:
            records = decode_sequence(found.value, f"sequences[{found.partition}]@{found.offset}").records
        except SequenceError as error:
            return Mismatch(user, str(error))
        return Update(user, records, Fence(self._topic, found.partition, found.offset), found.arrived_ms)
