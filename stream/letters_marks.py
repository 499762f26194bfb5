"""Up to where dead letters were replayed, kept by Kafka's own means: committed offsets.

A consumer group per reason, which never has members, holds its letters' marks. The broker forgets offsets that nobody has moved
for offsets.retention.minutes (7 days by default); then the letters count as not replayed.
"""

from __future__ import annotations

from edge.kafka import Admin, KafkaConfig
from schemas.names import Names
from stream.group_offsets import commit_offsets, committed_offsets
from stream.letters import DeadLetter
from stream.topics import partition_counts


class Marks:
    """The marks of one deployment, asked for once per reason.

    Raises:
        UnavailableError: Kafka does not answer.
    """

    def __init__(self, kafka: KafkaConfig, names: Names) -> None:
        self._kafka = kafka
        self._names = names
        self._known: dict[str, dict[int, int]] = {}

    def of(self, reason: str) -> dict[int, int]:
        """partition -> the offset of the first letter that was not replayed, where one is known."""
        if reason not in self._known:
            topic = self._names.dead_letters
            partitions = [(topic, p) for p in range(partition_counts(Admin(self._kafka), [topic]).get(topic, 0))]
            committed = committed_offsets(self._kafka, self._names.dead_letters_group(reason), partitions)
            self._known[reason] = {partition: offset for (_, partition), offset in committed.items()}
        return self._known[reason]

    def is_behind(self, letter: DeadLetter) -> bool:
        """Whether an earlier replay has sent the letter."""
        return letter.place.offset < self.of(letter.reason).get(letter.place.partition, 0)

    def move(self, reason: str, next_offsets: dict[int, int]) -> None:
        """Marks only go forward."""
        known = self.of(reason)
        forward = {p: offset for p, offset in next_offsets.items() if offset > known.get(p, 0)}
        if not forward:
            return
        topic = self._names.dead_letters
        commit_offsets(self._kafka, self._names.dead_letters_group(reason), {(topic, p): o for p, o in forward.items()})
        known |= forward
