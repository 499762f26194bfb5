"""Every topic, key, group, transactional id and header name, and why it is named so.

One `prefix` separates deployments that share a Kafka cluster or a Redis.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from schemas.errors import ConfigError

DEFAULT_PREFIX = "slipstream"

#: Names the sequence table inside Faust. It shows in nothing but Faust's own logs: topic and ids are named below.
SEQUENCE_TABLE = "sequences"

# Headers of a dead letter: the message's provenance, as UTF-8 text. Its value and key are the raw bytes as they came.
HEADER_REASON = "slipstream-reason"
HEADER_ERROR = "slipstream-error"
HEADER_TOPIC = "slipstream-topic"
HEADER_PARTITION = "slipstream-partition"
HEADER_OFFSET = "slipstream-offset"
HEADER_TIMESTAMP_MS = "slipstream-timestamp-ms"
#: Only in a letter that has no value because the dead letters topic takes none so large: how large it is, where it still stands.
HEADER_MISSING_VALUE_BYTES = "slipstream-missing-value-bytes"
#: Headers that the raw message itself carried are kept behind this prefix.
HEADER_ORIGINAL_PREFIX = "original-"
#: A replayed message carries it, so that a letter that fails again shows it: how often it was replayed, from 1.
HEADER_REPLAYS = "slipstream-replays"

# Kafka allows [a-zA-Z0-9._-] in topic names, at most 249 characters; ':' separates Redis key parts. '.' and '_' collide in
# Kafka's metric names, so '_' is not allowed in a prefix, since our own topics use '.'.
_PREFIX = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9.-]{0,127}")


@dataclass(frozen=True)
class Names:
    """The names of one deployment.

    Raises:
        ConfigError: the prefix cannot be part of a Kafka topic name.
    """

    prefix: str = DEFAULT_PREFIX

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise ConfigError(
                f"prefix {self.prefix!r} cannot name Kafka topics: use 1 to 128 of a-z, A-Z, 0-9, '.', '-', "
                "beginning with a letter or digit (setting `prefix`)"
            )

    # Topics. The three that carry one user's data have equal partition counts, and a user is in the same partition of each.
    @property
    def engagements(self) -> str:
        """Raw events and forget requests, JSON, any key, any partitions."""
        return f"{self.prefix}.engagements"

    @property
    def dead_letters(self) -> str:
        """Raw messages that could not be read, untouched, with their provenance in headers."""
        return f"{self.prefix}.engagements.dead-letters"

    @property
    def batches(self) -> str:
        """Packed batches (schemas.batch), one per partition and linger window."""
        return f"{self.prefix}.engagement-batches"

    @property
    def sequences(self) -> str:
        """The compacted changelog: user id -> sequence (schemas.sequence). Read it with isolation level read_committed."""
        return f"{self.prefix}.sequences"

    # Consumer groups and transactional ids.
    @property
    def ingest_group(self) -> str:
        return f"{self.prefix}-ingest"

    @property
    def sequence_app(self) -> str:
        """Faust's application id, which is its consumer group too."""
        return f"{self.prefix}-sequence"

    def dead_letters_group(self, reason: str) -> str:
        """Its committed offsets say up to where the letters of this reason were replayed. It never has members."""
        return f"{self.prefix}-dead-letters-{reason}"

    def encoder_group(self, model_id: str) -> str:
        return f"{self.prefix}-encoder-{model_id}"

    def sequence_transactional_ids(self, partition: int) -> tuple[str, str]:
        """Belong to the partition, not to the worker, so that a new owner's InitProducerId fences the former one (KIP-98).

        Two that take turns: the broker refuses a producer's next transaction while it still writes the last one's markers.
        """
        return f"{self.prefix}-sequences-{partition}-a", f"{self.prefix}-sequences-{partition}-b"

    # Redis keys.
    def state_key(self, model_id: str, user: bytes) -> bytes:
        """One key per user and model; a single key, so Redis Cluster needs no hash tag."""
        return b"%s:%s:%s" % (self.prefix.encode(), model_id.encode(), user)

    def state_key_pattern(self, model_id: str) -> str:
        """A SCAN pattern for all states of a model."""
        return f"{self.prefix}:{model_id}:*"

    def progress_key(self, model_id: str, partition: int, place: str = "") -> str:
        """Holds the model's progress mark of a partition of the changelog (schemas/progress.py). No model id is `progress`.

        Args:
            place: in a Redis Cluster the hash tag that says which slot; else empty.
        """
        return f"{self.prefix}:progress:{model_id}:{partition}" + (f":{{{place}}}" if place else "")

    def progress_key_pattern(self, model_id: str) -> str:
        """A SCAN pattern for all of a model."""
        return f"{self.prefix}:progress:{model_id}:*"

    @property
    def active_key(self) -> str:
        """Holds the id of the model that rankers read. No model id can be `active`: ids are hexadecimal."""
        return f"{self.prefix}:active"


def readers_group(topic: str) -> str:
    """For consumers that read a topic outside of any group: librdkafka wants a name, and looks for its coordinator, for which a
    user of a cluster with access rights needs the right to read that group. Nobody joins it, and nothing is committed."""
    return f"{topic}.readers"
