"""The raw topic as an event log, for training: what was committed so far, by the rules of ingest.

What ingest would make a dead letter of is left out and counted. Equal events are one; a forget request takes its user's events up
to its time along, wherever it stands.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from edge.kafka import Admin, KafkaConfig
from schemas.errors import EventError, LogError
from schemas.event import Forget, Parser, ParserConfig
from schemas.log import EventLog
from schemas.sequence import RECORD, Records
from stream.logs import MAX_EXAMPLES, LoadedLog
from stream.offsets import end_offsets, start_offsets
from stream.registry import RegistryConfig, framed_reader, framed_value
from stream.whole_topic import OnProgress, Record, partitions_in, read_spans

PREFIX = "kafka:"
_REGISTRY_GIVE_UP_S = 30.0


def read_topic(
    kafka: KafkaConfig,
    topic: str,
    rules: ParserConfig,
    registry: RegistryConfig | None = None,
    on_progress: OnProgress | None = None,
) -> LoadedLog:
    """Everything that is in the topic now, ordered by the events' time. Retention may have removed its beginning.

    Raises:
        TopicError, UnavailableError: as stream.whole_topic.read_whole.
        ConfigError, PrerequisiteError: as stream.registry.framed_reader.
        LogError: there are no events.
    """
    parser = Parser(rules, framed_reader(registry, rules.formats, _REGISTRY_GIVE_UP_S))
    admin = Admin(kafka)
    wanted = [(topic, partition) for partition in range(partitions_in(kafka, topic))]
    starts, ends = start_offsets(admin, wanted), end_offsets(admin, wanted, committed_only=True)
    spans = {place[1]: (starts[place], ends[place]) for place in wanted}
    found = _Found(parser)
    for chunk in read_spans(kafka, topic, spans, on_progress):
        found.add(chunk)
    users, user_index, records = found.events()
    if not len(records):
        said = f", and all {found.skipped.total()} messages are bad: {found.examples[0]}" if found.examples else ""
        raise LogError(f"topic {topic} holds no events{said}")
    log = EventLog(users, user_index, records, rules.vocabulary)
    return LoadedLog(log, found.skipped.total(), dict(found.skipped), tuple(found.examples))


class _Found:
    """What messages held so far. `skipped` counts by reason (EventError.REASONS)."""

    def __init__(self, parser: Parser) -> None:
        self._parser = parser
        self._index: dict[bytes, int] = {}
        self._forgotten_ms: dict[int, int] = {}
        self._users: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
        self._records: list[Records] = [np.empty(0, RECORD)]
        self.skipped: Counter[str] = Counter()
        self.examples: list[str] = []

    def add(self, messages: list[Record]) -> None:
        users: list[int] = []
        rows: list[tuple[int, int, int, int]] = []
        for message in messages:
            try:
                parsed = self._parser.parse(framed_value(message.value, message.headers), message.timestamp_ms)
            except EventError as error:
                self.skipped[error.reason] += 1
                if len(self.examples) < MAX_EXAMPLES:
                    self.examples.append(f"partition {message.partition}, offset {message.offset}: {error}")
                continue
            user = self._index.setdefault(parsed.user, len(self._index))
            if isinstance(parsed, Forget):
                self._forgotten_ms[user] = max(parsed.before_ms, self._forgotten_ms.get(user, 0))
            else:
                users.append(user)
                rows.append(parsed[1:])
        self._users.append(np.array(users, np.int32))
        self._records.append(np.array(rows, RECORD))

    def events(self) -> tuple[list[str], NDArray[np.int32], Records]:
        """Users, `(n,)` indices into them, `(n,)` records, by time; those that have no event left are left out."""
        users, records = np.concatenate(self._users), np.concatenate(self._records)
        floors = np.zeros(len(self._index), np.int64)
        floors[list(self._forgotten_ms)] = list(self._forgotten_ms.values())
        kept = records["timestamp_ms"] > floors[users]
        users, records = users[kept], records[kept]
        # By time, then in order of arrival as far as it is known; equal events become neighbours in the other order.
        sorting = np.lexsort(
            [records["surface"], records["action"], records["item_id"], records["timestamp_ms"], users]
        )
        again = np.zeros(len(records), bool)
        again[1:] = (np.diff(users[sorting]) == 0) & (records[sorting][1:] == records[sorting][:-1])
        first = np.sort(sorting[~again])
        users, records = users[first], records[first]
        order = np.argsort(records["timestamp_ms"], kind="stable")
        known, index = np.unique(users[order], return_inverse=True)
        names = [name.decode() for name in self._index]
        return [names[user] for user in known.tolist()], index.astype(np.int32), records[order]
