"""The topics: made with the settings that the stages rely on, and checked by every stage at its start.

engagements                raw events              LogAppendTime: arrival is the broker's time, whatever producers' clocks say
engagements.dead-letters   what could not be read  takes every message that `engagements` takes, and its provenance; LogAppendTime
engagement-batches         packed batches          as many partitions as `sequences`
sequences                  user -> sequence        compacted

With three replicas or more an acknowledged message is on two brokers at least (min.insync.replicas), whatever the cluster says.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]

from edge.kafka import REQUEST_TIMEOUT_S, Admin, KafkaConfig
from schemas.errors import TopicError, UnavailableError
from schemas.names import Names

DAY_MS = 86_400_000
MIB = 1 << 20

#: The largest raw message: what parses is at most 16 KiB (schemas.event), the rest is room to catch mistakes as dead letters
#: rather than to fail at the producer.
RAW_MAX_MESSAGE_BYTES = 11 * MIB
#: A raw message with its provenance in headers.
DEAD_LETTER_MAX_MESSAGE_BYTES = RAW_MAX_MESSAGE_BYTES + MIB
#: Ingest splits what is larger (stream.pack).
BATCH_MAX_MESSAGE_BYTES = MIB
#: One Kafka batch of the changelog, compressed. A sequence of 256 events has 5 KiB.
SEQUENCES_MAX_MESSAGE_BYTES = 4 * MIB


@dataclass(frozen=True)
class TopicPlan:
    name: str
    partitions: int
    config: Mapping[str, str]


@dataclass(frozen=True)
class TopicSummary:
    """What `create_topics` found: partitions by topic, and which topics it made."""

    partitions: Mapping[str, int]
    created: tuple[str, ...]

    @property
    def kept(self) -> tuple[str, ...]:
        return tuple(name for name in self.partitions if name not in self.created)


def plan_topics(
    names: Names, partitions: int, retention_ms: int = 7 * DAY_MS, dead_letter_retention_ms: int = 30 * DAY_MS
) -> list[TopicPlan]:
    """The four topics with the settings that matter."""
    return [
        TopicPlan(
            names.engagements,
            partitions,
            {
                "cleanup.policy": "delete",
                "retention.ms": str(retention_ms),
                "message.timestamp.type": "LogAppendTime",
                "max.message.bytes": str(RAW_MAX_MESSAGE_BYTES),
            },
        ),
        TopicPlan(
            names.dead_letters,
            partitions,
            {
                "cleanup.policy": "delete",
                "retention.ms": str(dead_letter_retention_ms),
                # When it was buried: an old changelog record would else be past its retention at once.
                "message.timestamp.type": "LogAppendTime",
                "max.message.bytes": str(DEAD_LETTER_MAX_MESSAGE_BYTES),
            },
        ),
        TopicPlan(
            names.batches,
            partitions,
            {
                "cleanup.policy": "delete",
                "retention.ms": str(retention_ms),
                "max.message.bytes": str(BATCH_MAX_MESSAGE_BYTES),
            },
        ),
        TopicPlan(
            names.sequences,
            partitions,
            {
                "cleanup.policy": "compact",
                # As the sequence stage compressed it: the broker does not compress again.
                "compression.type": "producer",
                # The record's time is the arrival of the raw event, set by the sequence stage: freshness is measured from it.
                "message.timestamp.type": "CreateTime",
                "max.message.bytes": str(SEQUENCES_MAX_MESSAGE_BYTES),
                # Only closed segments are compacted; a restarted worker reads what is not.
                "segment.bytes": str(128 * MIB),
                "segment.ms": str(DAY_MS // 4),
                "min.cleanable.dirty.ratio": "0.3",
                # What a user asked to forget is out of the log after two days at most, however quiet the partition is.
                "max.compaction.lag.ms": str(DAY_MS),
                # How long a tombstone can still be read by an encoder that was down.
                "delete.retention.ms": str(DAY_MS),
            },
        ),
    ]


def create_topics(
    kafka: KafkaConfig,
    names: Names,
    partitions: int,
    replication_factor: int = 1,
    *,
    retention_ms: int = 7 * DAY_MS,
    dead_letter_retention_ms: int = 30 * DAY_MS,
) -> TopicSummary:
    """Make the topics that are missing. Existing ones are left as they are, if the stages can work with them.

    Raises:
        TopicError: existing topics have partition counts that do not fit together or not `partitions`.
        UnavailableError: no answer from Kafka.
    """
    admin = Admin(kafka)
    plans = plan_topics(names, partitions, retention_ms, dead_letter_retention_ms)
    existing = partition_counts(admin, [plan.name for plan in plans])
    for name in (names.batches, names.sequences):
        if existing.get(name, partitions) != partitions:
            raise TopicError(
                f"topic {name} exists with {existing[name]} partitions, not {partitions}: `engagement-batches` and `sequences` "
                f"hold a user in the same partition, so their number cannot change. Use partitions {existing[name]}, or "
                "another prefix, whose sequences a replay of the raw events rebuilds"
            )
    # `engagements` and the dead letters may have any number: ingest partitions anew by user.
    missing = [plan for plan in plans if plan.name not in existing]
    _create(admin, missing, replication_factor)
    counts = {**existing, **{plan.name: plan.partitions for plan in missing}}
    return TopicSummary({plan.name: counts[plan.name] for plan in plans}, tuple(plan.name for plan in missing))


def _create(admin: Admin, plans: list[TopicPlan], replication_factor: int) -> None:
    if not plans:
        return
    topics = [
        NewTopic(
            p.name,
            num_partitions=p.partitions,
            replication_factor=replication_factor,
            config={**p.config, "min.insync.replicas": "2" if replication_factor > 2 else "1"},
        )
        for p in plans
    ]
    futures = admin.client.create_topics(
        topics, operation_timeout=REQUEST_TIMEOUT_S, request_timeout=2 * REQUEST_TIMEOUT_S
    )
    for name, future in futures.items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:  # somebody else made it just now
                continue
            failed = admin.failed(error, f"topic {name} cannot be created")
            raise failed if isinstance(failed, UnavailableError) else TopicError(str(failed)) from None
    # The controller has made them; the brokers that are asked next hear of it a moment later.
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    while len(partition_counts(admin, [p.name for p in plans])) < len(plans) and time.monotonic() < deadline:
        time.sleep(0.02)


def check_topics(kafka: KafkaConfig, names: Names) -> Mapping[str, int]:
    """Check that the four topics are there and fit together; the partitions of each.

    Raises:
        TopicError: a topic is missing, or `engagement-batches` and `sequences` differ in partitions.
        UnavailableError: no answer from Kafka.
    """
    wanted = [names.engagements, names.dead_letters, names.batches, names.sequences]
    counts = partition_counts(Admin(kafka), wanted)
    if missing := [name for name in wanted if name not in counts]:
        raise TopicError(
            f"{kafka.bootstrap_servers} has no topic {', '.join(missing)}: run `slipstream topics create`, "
            f"or check the prefix ({names.prefix!r})"
        )
    require_equal_partitions(names, counts)
    return counts


def require_equal_partitions(names: Names, counts: Mapping[str, int]) -> None:
    """
    Raises:
        TopicError: `engagement-batches` and `sequences` differ in partitions.
    """
    batches, sequences = counts[names.batches], counts[names.sequences]
    if batches != sequences:
        raise TopicError(
            f"topic {names.batches} has {batches} partitions and {names.sequences} has {sequences}, but both hold a user in the "
            f"same partition. Somebody changed one of them: delete {names.batches if batches > sequences else names.sequences}, "
            "run `slipstream topics create`, and replay the raw events"
        )


def partition_counts(admin: Admin, topics: list[str]) -> dict[str, int]:
    """Partitions of those of `topics` that exist.

    Raises:
        UnavailableError: no answer from Kafka.
        ConfigError: the login is refused.
        TopicError: the user may not see a topic.
    """
    counts = {topic: admin.partitions(topic) for topic in topics}
    return {topic: count for topic, count in counts.items() if count is not None}


def arrival_is_brokers_time(kafka: KafkaConfig, topic: str) -> bool:
    """Whether the topic's timestamps are the broker's (LogAppendTime). Unknown, for lack of rights, counts as yes."""
    settings = topic_settings(Admin(kafka), [topic])[topic]
    return settings is None or settings.get("message.timestamp.type", "LogAppendTime") == "LogAppendTime"


def topic_settings(admin: Admin, topics: Sequence[str]) -> dict[str, Mapping[str, str] | None]:
    """The settings of each topic by their names, the cluster's defaults included; None where this user may not see them, or Kafka
    does not answer."""
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
    futures = admin.client.describe_configs(resources, request_timeout=REQUEST_TIMEOUT_S)
    found: dict[str, Mapping[str, str] | None] = {}
    for resource, future in futures.items():
        try:
            found[resource.name] = {name: str(entry.value) for name, entry in future.result().items()}
        except KafkaException:
            found[resource.name] = None
    return found
