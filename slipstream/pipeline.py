"""A deployment as its owner sees it from outside: lag, dead letters, the environment that its stages start in."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from edge.kafka import Admin, KafkaConfig
from schemas.errors import UnavailableError
from schemas.names import Names
from stream.dead_letters import read_dead_letter_headers
from stream.lag import group_lag
from stream.whole_topic import read_whole

_LOOK_S = 0.2


@dataclass(frozen=True)
class Pipeline:
    """One deployment: where it runs, its names and its model."""

    kafka: KafkaConfig
    redis_url: str
    names: Names
    model_id: str

    @cached_property
    def _admin(self) -> Admin:
        return Admin(self.kafka)

    def environment(self, bundle: Path) -> dict[str, str]:
        """What a stage's process needs to know, in the environment: a Redis URL may hold a password, command lines are public."""
        return {
            "SLIPSTREAM_KAFKA_BOOTSTRAP": self.kafka.bootstrap_servers,
            "SLIPSTREAM_KAFKA_OPTIONS": json.dumps(dict(self.kafka.options)),
            "SLIPSTREAM_REDIS_URL": self.redis_url,
            "SLIPSTREAM_PREFIX": self.names.prefix,
            "SLIPSTREAM_BUNDLE": str(bundle),
        }

    def lag(self) -> dict[str, int]:
        """Messages that each stage has not worked off yet: raw events, packed batches, sequences.

        Raises:
            TopicError, UnavailableError: a topic is not there, or Kafka does not answer.
        """
        names, admin = self.names, self._admin
        by_stage = {
            "ingest": group_lag(admin, names.ingest_group, [names.engagements]),
            "sequence": group_lag(admin, names.sequence_app, [names.batches]),
            "encode": group_lag(admin, names.encoder_group(self.model_id), [names.sequences], self.kafka),
        }
        return {stage: sum(lag.values()) for stage, lag in by_stage.items()}

    def is_quiet(self) -> bool:
        """Whether every stage has worked off everything. Asked in the order of the stages: nothing slips through between."""
        return not any(self.lag().values())

    def still_behind(self, timeout_s: float) -> str:
        """Wait until every stage has worked off everything. Empty if they have; else which have not, and by how much.

        Raises:
            TopicError, UnavailableError: as `lag`.
        """
        deadline = time.monotonic() + timeout_s
        while any((lag := self.lag()).values()):
            if time.monotonic() > deadline:
                behind = ", ".join(f"{stage} {count:,}" for stage, count in lag.items() if count)
                return f"after {timeout_s:g} s stages are still behind, in messages: {behind}. Does each of them run?"
            time.sleep(_LOOK_S)
        return ""

    def wait_until_quiet(self, timeout_s: float) -> None:
        """
        Raises:
            UnavailableError: some stage is still behind; the message says which, and by how much.
            TopicError: as `lag`.
        """
        if behind := self.still_behind(timeout_s):
            raise UnavailableError(behind)

    def dead_letters(self) -> int:
        """Distinct raw messages in the dead letters: a stage that was killed may have written one twice."""
        found = set()
        for records in read_whole(self.kafka, self.names.dead_letters):
            for record in records:
                headers = read_dead_letter_headers(record.headers)
                if headers is not None:
                    found.add((headers.provenance.topic, headers.provenance.partition, headers.provenance.offset))
        return len(found)
