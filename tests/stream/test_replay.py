"""What a replay sends, before Kafka. tests/integration/test_replay.py sends it."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.errors import EventError
from schemas.event import Encoding, Event, Parser, ParserConfig
from schemas.log import EventLog
from schemas.sequence import RECORD
from schemas.vocabulary import Vocabulary
from stream.inject import InjectConfig, Kind, plan_messages
from stream.replay import Encoder

ARRIVED_MS = 1_790_000_000_000


def small_log(events: int) -> EventLog:
    at = np.arange(events)
    records = np.zeros(events, RECORD)
    records["timestamp_ms"] = 1_700_000_000_000 + at
    records["item_id"] = at * 2**50
    records["action"] = at % 7
    records["surface"] = at % 6
    return EventLog(["ann", "bøb", "17"], (at % 3).astype(np.int32), records, Vocabulary())


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_every_message_is_what_the_plan_says(encoding: Encoding) -> None:
    log, parser = small_log(300), Parser(ParserConfig())
    plan = plan_messages(len(log), InjectConfig(0.2, 0.1, 0.3))
    callbacks = {kind: (lambda *_: None) for kind in Kind}
    encoder = Encoder(log, plan, True, encoding)
    messages = [*encoder.messages(0, 100, callbacks), *encoder.messages(100, len(plan.kind), callbacks)]
    assert len(messages) == len(plan.kind)
    unreadable = 0
    for message, kind, at in zip(messages, plan.kind.tolist(), plan.event.tolist(), strict=True):
        user = log.users[log.user_index[at]]
        assert message["key"] == user
        assert message["callback"] is callbacks[kind]
        try:
            event = parser.parse(message["value"], ARRIVED_MS)
        except EventError:
            unreadable += 1
            assert kind == Kind.MALFORMED
        else:
            assert event == Event(user.encode(), *log.records[at].tolist())
            assert message["value"][:1] == (b"{" if encoding == "json" else b"\x85")
            assert kind != Kind.MALFORMED
    assert unreadable == 90


def test_keys_are_optional() -> None:
    log = small_log(3)
    encoder = Encoder(log, plan_messages(3, InjectConfig()), key_by_user=False)
    assert [message["key"] for message in encoder.messages(0, 3, dict.fromkeys(Kind, print))] == [None] * 3
