"""Rolling over to another model: which models have states, how far their encoders are, which one rankers read.

Two models live side by side: each has its own consumer group and its own keys, and `<prefix>:active` names the one that rankers
read. So rolling over is: start encoders with the new bundle; when they have caught up, `activate`; rankers load the new bundle
when `StateReader.require_active` says so. Back is the same command with the former model. `retire` deletes what is left.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from edge.kafka import REQUEST_TIMEOUT_S, Admin, KafkaConfig, make, mapped
from encoder.models_redis import activate_model, active_model, delete_states
from encoder.store_redis import RedisClient
from schemas.backfill import decode_note
from schemas.bundle import MODEL_ID_CHARS
from schemas.errors import ConfigError, FencedError, UnavailableError
from schemas.names import Names
from stream.group_offsets import Committed, committed, committed_offsets
from stream.lag import group_lag
from stream.offsets import end_offsets
from stream.topics import partition_counts

_LOOK_S = 0.2
#: An encoder that was only just started has joined its group and committed something by then.
_BEGINS_WITHIN_S = 30.0
_MODEL_ID = re.compile(f"[0-9a-f]{{{MODEL_ID_CHARS}}}")


class Backfill(NamedTuple):
    """What a model's encoders work off beside live records.

    Attributes:
        left: offsets.
        per_s: offsets a second, of all workers; None: no encoder runs.
        left_s: until the slowest worker is done; None: not known yet, or no encoder runs.
    """

    left: int
    per_s: float | None
    left_s: float | None


class ModelStatus(NamedTuple):
    """
    Attributes:
        active: rankers read it.
        encoders: workers in its consumer group.
        lag: changelog records that are not in its states yet; None: no encoder of it ever committed.
        backfill: as its encoders last committed it; None: every partition is read in its order.
    """

    model_id: str
    active: bool
    encoders: int
    lag: int | None
    backfill: Backfill | None = None


class Models:
    """The models of one deployment."""

    def __init__(self, kafka: KafkaConfig, client: RedisClient, names: Names) -> None:
        """
        Args:
            client: as encoder.store_redis.connect makes it.
        """
        self._kafka, self._client, self._names = kafka, client, names
        self._admin = Admin(kafka)

    def status(self) -> list[ModelStatus]:
        """Every model that has a consumer group, and the active one; that first, then by id.

        Raises:
            TopicError, UnavailableError: the changelog is not there; Kafka or Redis does not answer.
        """
        active = active_model(self._client, self._names)
        encoders = self._encoders()
        found = [
            self._status(model_id, model_id == active, encoders.get(model_id, 0))
            for model_id in sorted({*encoders, *([active] if active else [])})
        ]
        return sorted(found, key=lambda model: not model.active)

    def activate(self, model_id: str, patience_s: float) -> str | None:
        """Let rankers read this model, when it holds every record that was in the changelog when this was called.

        Returns:
            The model that was active before, to go back to; None if there was none.

        Raises:
            ConfigError: no encoder of it ever committed, nor does so within `patience_s` or 30 s, whichever is shorter.
            UnavailableError: it did not catch up within `patience_s`; or Kafka or Redis does not answer.
        """
        topic, group = self._names.sequences, self._names.encoder_group(_checked(model_id))
        where = [(topic, partition) for partition in range(partition_counts(self._admin, [topic])[topic])]
        ends = end_offsets(self._admin, where, committed_only=True)
        begun_s = time.monotonic()
        while True:
            reached = committed_offsets(self._kafka, group, where)
            behind = sum(max(0, ends[w] - reached.get(w, 0)) for w in where)
            if reached and not behind:
                return activate_model(self._client, self._names, model_id)
            waited_s = time.monotonic() - begun_s
            if not reached and waited_s >= min(patience_s, _BEGINS_WITHIN_S):
                raise ConfigError(
                    f"no encoder of model {model_id} ever ran here (prefix {self._names.prefix}): start "
                    "`slipstream --bundle <its directory> encode`, and activate it when it has caught up"
                )
            if waited_s > patience_s:
                raise UnavailableError(
                    f"model {model_id} is still {behind:,} offsets of {topic} behind after {patience_s:.0f} s: rankers "
                    "would read older states than now. Do its encoders run? `slipstream model status` shows its lag; "
                    "--wait waits for longer"
                )
            time.sleep(_LOOK_S)

    def retire(self, model_id: str, progress: Callable[[int], None]) -> int:
        """Delete a model's states and its consumer group. Interrupted, it can be called again.

        Args:
            progress: called now and then with the states deleted so far.

        Returns:
            The states deleted, markers of deleted users included.

        Raises:
            ConfigError: rankers read it.
            FencedError: encoders of it run: they would write its states again.
            UnavailableError: Kafka or Redis does not answer.
        """
        active = active_model(self._client, self._names)
        if _checked(model_id) == active:
            raise ConfigError(f"rankers read model {model_id}: activate another one first")
        encoders = self._encoders()
        if encoders.get(model_id):
            raise FencedError(
                f"{encoders[model_id]} encoders of model {model_id} run and would write its states again: stop them first"
            )
        deleted = delete_states(self._client, self._names, model_id, progress)
        if model_id in encoders:
            group = self._names.encoder_group(model_id)
            self._asked(lambda client: client.delete_consumer_groups([group])[group].result(REQUEST_TIMEOUT_S))
        return deleted

    def _encoders(self) -> dict[str, int]:
        """Members of each model's consumer group, by model."""
        prefix = self._names.encoder_group("")
        listed = self._asked(lambda client: client.list_consumer_groups().result(REQUEST_TIMEOUT_S))
        groups = [g.group_id for g in listed.valid if _is_of_model(g.group_id, prefix)]
        if not groups:
            return {}
        described = self._asked(
            lambda client: {group: asked.result() for group, asked in client.describe_consumer_groups(groups).items()}
        )
        return {group.removeprefix(prefix): len(found.members) for group, found in described.items()}

    def _status(self, model_id: str, active: bool, encoders: int) -> ModelStatus:
        topic, group = self._names.sequences, self._names.encoder_group(model_id)
        partitions = partition_counts(self._admin, [topic])[topic]
        found = committed(self._kafka, group, [(topic, partition) for partition in range(partitions)])
        if not found:
            return ModelStatus(model_id, active, encoders, None)
        lag = sum(group_lag(self._admin, group, [topic], self._kafka).values())
        return ModelStatus(model_id, active, encoders, lag, backfill_of(found.values(), encoders > 0))

    def _asked(self, ask: Callable[[AdminClient], Any]) -> Any:
        try:
            return ask(make(AdminClient, self._kafka.client(), self._kafka))
        except KafkaException as error:
            raise mapped(error, f"Kafka at {self._kafka.bootstrap_servers}, consumer groups") from None


def backfill_of(found: Iterable[Committed], runs: bool) -> Backfill | None:
    """The progress that encoders noted beside their offsets.

    Args:
        runs: an encoder does: otherwise what they noted of their speed is past.
    """
    noted = [(row.offset, note) for row in found if (note := decode_note(row.metadata)) is not None]
    if not noted:
        return None
    left = sum(max(0, note.end - offset) for offset, note in noted)
    if not runs:
        return Backfill(left, None, None)
    workers = {note.worker: note for _, note in noted}.values()
    known = [note.left_s for note in workers if note.left_s is not None]
    return Backfill(left, sum(note.per_s for note in workers), max(known) if len(known) == len(workers) else None)


def _is_of_model(group: str, prefix: str) -> bool:
    return group.startswith(prefix) and _MODEL_ID.fullmatch(group.removeprefix(prefix)) is not None


def _checked(model_id: str) -> str:
    if not _MODEL_ID.fullmatch(model_id):
        raise ConfigError(
            f"{model_id!r} is no model id: {MODEL_ID_CHARS} hexadecimal digits, as `slipstream model status` lists them"
        )
    return model_id
