"""Dead letters sent back to where they came from, after what was wrong has been put right.

Raw messages go to `engagements`, batches to `engagement-batches`, each to its partition there: value and key untouched, the
headers that it had, and one more that counts replays, so that a letter that fails again shows it.

The order in which things become durable:

    1 read      a chunk of letters
    2 send      those that were asked for and are not behind their reason's mark (stream.letters_marks)
    3 deliver   wait until the broker has acknowledged all of them
    4 mark      move the marks

A crash between any two steps sends the letters after the last marks again: at least once, which is enough, since the merge
downstream is idempotent. For the same reason two replays at once do no harm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from edge.kafka import REQUEST_TIMEOUT_S, KafkaConfig, make, mapped
from schemas.errors import ConfigError, SlipstreamError, UnavailableError
from schemas.names import Names
from stream.dead_letters import BAD_SEQUENCE, replay_headers
from stream.letters import DeadLetter, Place, all_letters, read_letter, read_letters
from stream.letters_marks import Marks
from stream.topics import DEAD_LETTER_MAX_MESSAGE_BYTES
from stream.whole_topic import OnProgress, partitions_in

DELIVERY_TIMEOUT_S = 60.0


@dataclass
class ReplayReport:
    """What became of the letters that were asked for.

    Attributes:
        sent: by (reason, topic that they went to); of a dry run, what would be sent.
        passed: those that an earlier replay has sent.
        unfit: why they cannot be sent -> how many.
        refused: letters that the broker did not take, and why not.
    """

    sent: Counter[tuple[str, str]] = field(default_factory=Counter)
    passed: int = 0
    unfit: Counter[str] = field(default_factory=Counter)
    refused: list[tuple[Place, str]] = field(default_factory=list)


def why_unfit(letter: DeadLetter, names: Names) -> str | None:
    """Why a letter cannot be replayed, and what to do instead; None if it can be."""
    said = letter.said
    if said is None:
        return "not a dead letter: its headers are none of ours, so nobody knows where it came from"
    if said.reason == BAD_SEQUENCE:
        return (
            "a damaged record of the changelog, which only its sequence worker may write: send the user's events again, or let "
            "ingest read `engagements` again from its beginning (docs/operations.md says how)"
        )
    if said.provenance.topic not in (names.engagements, names.batches):
        return f"it came from topic {said.provenance.topic}, which is not one of prefix {names.prefix}"
    if said.missing_value_bytes is not None:
        return (
            f"its value was too large for topic {names.dead_letters} and is not in the letter: read it where the letter says "
            "that it came from, while that topic's retention keeps it"
        )
    return None


def replay_letters(
    kafka: KafkaConfig,
    names: Names,
    reasons: Collection[str] | None,
    *,
    again: bool = False,
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
) -> ReplayReport:
    """Send the letters of these reasons (None: of all) that were not replayed yet. What fails again is for the next time.

    Args:
        again: those too that were replayed.
        dry_run: send nothing and mark nothing.

    Raises:
        TopicError, UnavailableError: a topic is missing, Kafka does not answer. What was sent before is marked.
        SlipstreamError: Kafka refuses.
    """
    marks, report = Marks(kafka, names), ReplayReport()
    spans = all_letters(kafka, names)
    sender = None if dry_run else _Sender(kafka, names, report)
    total = sum(end - start for start, end in spans.values())
    met: set[str] = set()
    passed: dict[int, int] = {}
    for letters in read_letters(kafka, names, spans):
        fit = [letter for letter in letters if _is_chosen(letter, reasons) and _is_fit(letter, names, report)]
        fresh = fit if again else [letter for letter in fit if not marks.is_behind(letter)]
        report.passed += len(fit) - len(fresh)
        _send(fresh, report, sender)
        for letter in letters:
            passed[letter.place.partition] = letter.place.offset + 1
        if sender is not None:
            sender.deliver()
            for reason in {letter.reason for letter in fit}:
                marks.move(reason, passed)
                met.add(reason)
        if on_progress is not None:
            on_progress(sum(offset - spans[p][0] for p, offset in passed.items()), total)
    if sender is not None:
        for reason in met:
            marks.move(reason, {partition: end for partition, (_, end) in spans.items()})
    return report


def replay_places(kafka: KafkaConfig, names: Names, places: Sequence[Place], *, dry_run: bool = False) -> ReplayReport:
    """Send these letters, whether they were replayed before or not. Marks stay where they are.

    Raises:
        ConfigError: there is no letter at a place, or one that cannot be replayed; nothing is sent then.
        TopicError, UnavailableError, SlipstreamError: as `replay_letters`.
    """
    report = ReplayReport()
    letters = [read_letter(kafka, names, place) for place in dict.fromkeys(places)]
    for letter in letters:
        if why := why_unfit(letter, names):
            raise ConfigError(f"letter {letter.place} cannot be replayed: {why}")
    sender = None if dry_run else _Sender(kafka, names, report)
    _send(letters, report, sender)
    if sender is not None:
        sender.deliver()
    return report


def _is_chosen(letter: DeadLetter, reasons: Collection[str] | None) -> bool:
    return reasons is None or letter.reason in reasons


def _is_fit(letter: DeadLetter, names: Names, report: ReplayReport) -> bool:
    why = why_unfit(letter, names)
    if why is not None:
        report.unfit[why] += 1
    return why is None


def _send(letters: Iterable[DeadLetter], report: ReplayReport, sender: _Sender | None) -> None:
    for letter in letters:
        assert letter.said is not None
        report.sent[letter.reason, letter.said.provenance.topic] += 1
        if sender is not None:
            sender.send(letter)


class _Sender:
    """Writes letters to the partitions that they came from. What is refused for its size does not stop the rest."""

    def __init__(self, kafka: KafkaConfig, names: Names, report: ReplayReport) -> None:
        self._report = report
        self._failure: SlipstreamError | None = None
        self._raw = names.engagements
        self._partitions = {topic: partitions_in(kafka, topic) for topic in (names.engagements, names.batches)}
        settings = kafka.client(
            enable_idempotence=True,
            linger_ms=5,
            compression_type="lz4",
            message_max_bytes=DEAD_LETTER_MAX_MESSAGE_BYTES,
            message_timeout_ms=int(DELIVERY_TIMEOUT_S * 1000),
            queue_buffering_max_kbytes=64 << 10,
        )
        self._producer: Producer = make(Producer, settings, kafka)

    def send(self, letter: DeadLetter) -> None:
        assert letter.said is not None
        topic, partition = letter.said.provenance[:2]
        if partition >= self._partitions[topic]:  # the topic was made anew, with fewer
            if topic != self._raw:
                self._refuse(
                    letter, f"topic {topic} has no partition {partition} any more, and its users are in no other"
                )
                return
            partition = -1
        arguments: dict[str, Any] = {
            "partition": partition,
            "headers": replay_headers(letter.said.original),
            "on_delivery": self._on_delivery(letter),
        }
        while True:
            try:
                self._producer.produce(topic, letter.value, letter.key, **arguments)
                break
            except BufferError:  # full: wait for deliveries
                self._producer.poll(0.05)
                self._raise_failure()
            except KafkaException as error:
                self._failed(error.args[0], letter)
                break
        self._raise_failure()

    def deliver(self) -> None:
        """Returns when everything is acknowledged."""
        left = self._producer.flush(DELIVERY_TIMEOUT_S + REQUEST_TIMEOUT_S)  # librdkafka gives each up before that
        self._raise_failure()
        if left:
            raise UnavailableError(
                f"{left} replayed letters are not acknowledged; is Kafka healthy? Run the same command again"
            )

    def _on_delivery(self, letter: DeadLetter) -> Callable[[KafkaError | None, Message], None]:
        slim = letter._replace(value=None, headers=[])
        return lambda error, _: self._failed(error, slim) if error is not None else None

    def _failed(self, error: KafkaError, letter: DeadLetter) -> None:
        assert letter.said is not None
        topic = letter.said.provenance.topic
        if error.code() in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD):
            self._refuse(letter, f"topic {topic} does not take it: {error.str()}")
        elif self._failure is None:
            self._failure = mapped(
                error,
                f"topic {topic}: letter {letter.place} not sent; run the same command again, it goes on at its marks",
            )

    def _refuse(self, letter: DeadLetter, why: str) -> None:
        assert letter.said is not None
        self._report.sent[letter.reason, letter.said.provenance.topic] -= 1
        self._report.refused.append((letter.place, why))

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
