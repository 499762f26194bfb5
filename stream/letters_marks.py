"""Up to where dead letters were replayed, kept by Kafka's own means: committed offsets.

A consumer group per reason, which never has members, holds its letters' marks. The broker forgets offsets that nobody has moved
for offsets.retention.minutes (7 days by default); then the letters count as not replayed.
"""

from __future__ import annotations

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition

from edge.kafka import REQUEST_TIMEOUT_S, Admin, KafkaConfig, mapped
from schemas.names import Names
from stream.lag import committed_offsets
from stream.letters import DeadLetter


class Marks:
    """The marks of one deployment, asked for once per reason.

    Raises:
        UnavailableError: Kafka does not answer.
    """

    def __init__(self, kafka: KafkaConfig, names: Names) -> None:
        self._admin = Admin(kafka)
        self._names = names
        self._known: dict[str, dict[int, int]] = {}

    def of(self, reason: str) -> dict[int, int]:
        """partition -> the offset of the first letter that was not replayed, where one is known."""
        if reason not in self._known:
            committed = committed_offsets(self._admin, self._names.dead_letters_group(reason))
            self._known[reason] = {
                partition: offset
                for (topic, partition), offset in committed.items()
                if topic == self._names.dead_letters
            }
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
        group = self._names.dead_letters_group(reason)
        topic = self._names.dead_letters
        request = ConsumerGroupTopicPartitions(
            group, [TopicPartition(topic, p, offset) for p, offset in forward.items()]
        )
        future = self._admin.client.alter_consumer_group_offsets([request], request_timeout=REQUEST_TIMEOUT_S)[group]
        try:
            result = future.result().topic_partitions or []
        except KafkaException as error:
            raise self._admin.failed(error, f"offsets of group {group}") from None
        for position in result:
            if position.error is not None:
                raise mapped(position.error, f"offset of group {group}, partition {position.partition}")
        known |= forward
