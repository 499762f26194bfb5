"""Whether anything was lost: the oracle over the raw topic, the dead letters, and how the workers ended."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.chaos.workers import Exit
from edge.kafka import KafkaConfig
from schemas.errors import FencedError, TopicError, UnavailableError
from schemas.event import ParserConfig
from schemas.names import Names
from stream.dead_letters import read_dead_letter_headers
from stream.oracle import Changelog, Mismatch, Rebuilt, compare, decode, read_raw, read_sequences, rebuild
from stream.whole_topic import Record, read_whole

#: A stage retries for a while before it gives up, and a worker that is started while the broker is away ends after some seconds.
_BROKER_EXCUSES_FOR_S = 60.0
_REFUSAL_EXCUSES_FOR_S = 20.0

Checksums = dict[int, list[int]]
"""CRC-32 of every raw value, by partition, in the order of offsets."""


@dataclass
class Verdict:
    """
    Attributes:
        messages: in the raw topic.
        sequences: users that must have one.
        events_lost: events that a sequence should hold and does not.
        malformed: messages that must be in the dead letters.
        problems: everything that is wrong, in words. Empty if nothing is.
        mismatches: of sequences.
    """

    messages: int
    sequences: int
    events_lost: int
    malformed: int
    dead_letters: int
    mismatches: list[Mismatch]
    problems: list[str] = field(default_factory=list)


def judge(kafka: KafkaConfig, names: Names, acknowledged: int) -> Verdict:
    """Compare what is there with what must be. Call it when the stages have caught up.

    Args:
        acknowledged: messages of which the sender knows that the broker has them.
    """
    checksums: Checksums = defaultdict(list)
    rebuilt = rebuild(_noting(read_raw(kafka, names), checksums), ParserConfig())
    changelog = read_sequences(kafka, names)
    mismatches = compare(rebuilt, changelog, names.sequences)
    letters = [record for records in read_whole(kafka, names.dead_letters) for record in records]
    verdict = Verdict(
        rebuilt.messages,
        len(rebuilt.sequences),
        events_lost(rebuilt, changelog),
        len(rebuilt.unreadable),
        len(letters),
        mismatches,
    )
    if mismatches:
        verdict.problems.append(f"{len(mismatches)} sequences differ")
    if rebuilt.messages < acknowledged:
        verdict.problems.append(f"the raw topic has {rebuilt.messages} messages, {acknowledged} were acknowledged")
    verdict.problems += wrong_letters(names.engagements, rebuilt, letters, checksums)
    return verdict


def events_lost(rebuilt: Rebuilt, changelog: Changelog) -> int:
    """Events that sequences should hold and do not."""
    lost = 0
    for user, (_, rows) in rebuilt.sequences.items():
        found = changelog.sequences.get(user)
        decoded = decode(found.value) if found is not None else None
        lost += len(set(rows) - set(decoded[1])) if decoded is not None else len(rows)
    return lost


def wrong_letters(topic: str, rebuilt: Rebuilt, letters: Iterable[Record], checksums: Checksums) -> list[str]:
    """What is wrong with the dead letters: each unreadable message of `topic` must be there, as it came, and nothing else.

    Once or more: a worker that was killed may have written one and not committed its offset.
    """
    expected = {(unreadable.partition, unreadable.offset) for unreadable in rebuilt.unreadable}
    found: set[tuple[int, int]] = set()
    changed = foreign = 0
    for letter in letters:
        headers = read_dead_letter_headers(letter.headers)
        if headers is None or headers.provenance.topic != topic:
            foreign += 1
            continue
        where = headers.provenance.partition, headers.provenance.offset
        found.add(where)
        changed += where in expected and zlib.crc32(letter.value or b"") != checksums[where[0]][where[1]]
    wrong = {
        "malformed messages are not in the dead letters": len(expected - found),
        "dead letters are of messages that can be read": len(found - expected),
        "dead letters are not as the message was": changed,
        "dead letters are of no raw message": foreign,
    }
    return [f"{n} {what}" for what, n in wrong.items() if n]


def unexplained(
    exits: Sequence[Exit],
    absences: Sequence[tuple[float, float]],
    refusals: Sequence[tuple[str, float, float]],
    redis_absences: Sequence[tuple[float, float]] = (),
) -> list[str]:
    """Workers that ended for no reason that a fault explains, or without saying why.

    Args:
        absences: of the broker, (from, to).
        refusals: (stage whose topic took nothing, from, to).
        redis_absences: (from, to).
    """

    def is_explained(end: Exit) -> bool:
        match end.code:
            case -9:
                return end.asked == "kill"
            case 0:
                return end.asked == "stop"
            case -15:  # SIGTERM before it could hear: it had begun nothing
                return end.asked == "stop" and not end.worked
            case FencedError.exit_code:
                return "another worker owns it now" in end.said
            case UnavailableError.exit_code:
                excuses = [*absences, *(redis_absences if end.stage == "encode" else ())]
                return any(began <= end.at_s <= over + _BROKER_EXCUSES_FOR_S for began, over in excuses)
            case TopicError.exit_code:
                return any(
                    stage == end.stage and began <= end.at_s <= over + _REFUSAL_EXCUSES_FOR_S
                    for stage, began, over in refusals
                )
        return False

    return [
        f"{end.worker} ended with exit code {end.code}{', asked to ' + end.asked if end.asked else ''}: {end.said or '(no word)'}"
        for end in exits
        if not is_explained(end)
    ]


def tracebacks(logs: Iterable[Path]) -> list[str]:
    """Logs with a traceback: errors that nobody expected."""
    return [f"{log.name} has a traceback" for log in logs if "Traceback" in log.read_text(errors="replace")]


def _noting(records: Iterable[Record], checksums: Checksums) -> Iterator[Record]:
    for record in records:
        of_partition = checksums[record.partition]
        of_partition += [0] * (record.offset - len(of_partition))  # an offset without a record
        of_partition.append(zlib.crc32(record.value or b""))
        yield record
