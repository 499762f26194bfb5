"""Replay: an event log sent to `engagements` as producers would send it.

The plan (stream.inject) and the pace (stream.pace) are pure; this module encodes chunks of the plan and sends them.

Promise: every message that a report counts was acknowledged by all in-sync replicas, and unless the replay was stopped, so was
every event of the log. What cannot be delivered is an error, never a silent loss. Events of one partition arrive in the order of
the plan (idempotent producer).
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.kafka import KafkaConfig
from schemas.event import Encoding, encode_engagement
from schemas.log import EventLog
from schemas.names import Names
from stream.inject import InjectConfig, Kind, Plan, plan_messages
from stream.malformed import KINDS
from stream.pace import AsFastAsPossible, Pace, chunk_starts, due_s
from stream.sender import Sender

#: So much is between two looks at the clock, the counters and the stop event.
MAX_CHUNK_MESSAGES = 1_000
_MALFORMED = tuple(KINDS.values())


@dataclass(frozen=True)
class ReplayConfig:
    """How a log is replayed.

    Attributes:
        kafka: the cluster.
        names: the topic is `names.engagements`.
        pace: fixed rate, scaled time, or as fast as possible.
        inject: duplicates, late events and malformed messages.
        key_by_user: the message's key is the user id; else there is none. Ingest regroups by user in both cases.
        chunk_s: messages that are due within so many seconds are sent together, at the time of the first: the pace's resolution.
        delivery_timeout_s: librdkafka tries to deliver a message for so long.
        progress_s: seconds between two calls of `on_progress`.
        encoding: of the events; malformed messages are what they are.
    """

    kafka: KafkaConfig
    names: Names = field(default_factory=Names)
    pace: Pace = field(default_factory=AsFastAsPossible)
    inject: InjectConfig = field(default_factory=InjectConfig)
    key_by_user: bool = True
    chunk_s: float = 0.004
    delivery_timeout_s: float = 120.0
    progress_s: float = 0.25
    encoding: Encoding = "json"


@dataclass(frozen=True)
class ReplayReport:
    """What was delivered, counted from delivery reports.

    Attributes:
        events_sent: events of the log, each counted once, late ones included.
        late_sent: those of them that were held back.
        duplicates_sent, malformed_sent: messages more.
        first_ms, last_ms: Unix ms by this machine's clock: the first send, and the last delivery report so far (0: none).
        seconds: between these two.
        events_per_s: `events_sent` over `seconds`.
        stopped: it ended early, by the stop event or Ctrl-C.
    """

    events_sent: int
    duplicates_sent: int
    late_sent: int
    malformed_sent: int
    first_ms: int
    last_ms: int
    seconds: float
    events_per_s: float
    stopped: bool = False

    @property
    def messages_sent(self) -> int:
        return self.events_sent + self.duplicates_sent + self.malformed_sent


def run_replay(
    config: ReplayConfig,
    log: EventLog,
    on_progress: Callable[[ReplayReport], None] | None = None,
    before_send: Callable[[NDArray[np.int64]], None] | None = None,
    stop: threading.Event | None = None,
) -> ReplayReport:
    """Send the log; returns when everything is acknowledged.

    Args:
        on_progress: called with what was delivered so far, every `progress_s` seconds and at the end.
        before_send: called just before each chunk with `(k,)` i64, in the order of sending: the log's indices of the events that
            go out now for the first time. A hook that takes longer than its chunk makes the replay late; it then sends without
            pauses, in the same chunks, until it has caught up.
        stop: set it from another thread or a signal handler to end early. Ctrl-C does the same where nobody handles SIGINT; the
            second one is a KeyboardInterrupt.

    Raises:
        UnavailableError: Kafka cannot be reached, or does not acknowledge in time.
        TopicError: the topic does not exist.
        SlipstreamError: Kafka refused a message.
    """
    stop = stop or threading.Event()
    plan = plan_messages(len(log), config.inject)
    due = due_s(config.pace, log.records["timestamp_ms"])[plan.place]  # (m,)
    starts = chunk_starts(due, config.chunk_s, MAX_CHUNK_MESSAGES).tolist()
    encoder = Encoder(log, plan, config.key_by_user, config.encoding)
    sender = Sender(config.kafka, config.names.engagements, config.delivery_timeout_s)
    with _interrupt_sets(stop):
        started_s = time.monotonic()
        next_progress_s = started_s + config.progress_s
        for start, end in pairwise(starts):
            sender.wait_until(started_s + float(due[start]), stop)
            if before_send is not None and not stop.is_set():
                first_time = plan.kind[start:end] <= Kind.LATE  # (k,) bool
                if first_time.any():
                    before_send(plan.event[start:end][first_time])
            sender.send(encoder.messages(start, end, sender.callbacks), stop)
            if stop.is_set():
                break
            if on_progress is not None and time.monotonic() >= next_progress_s:
                on_progress(_report(sender))
                next_progress_s = time.monotonic() + config.progress_s
        sender.flush()
    report = _report(sender, stopped=stop.is_set())
    if on_progress is not None:
        on_progress(report)
    return report


class Encoder:
    """Chunks of a plan -> messages for `Producer.produce_batch`. Pure."""

    def __init__(self, log: EventLog, plan: Plan, key_by_user: bool, encoding: Encoding = "json") -> None:
        self._log, self._plan, self._key_by_user, self._encoding = log, plan, key_by_user, encoding

    def messages(self, start: int, end: int, callbacks: dict[int, Callable[..., None]]) -> list[dict[str, Any]]:
        """The messages [start, end) of the plan; `callbacks` are called with their delivery reports, by kind."""
        log, plan = self._log, self._plan
        users, actions, surfaces = log.users, log.vocabulary.actions, log.vocabulary.surfaces
        event = plan.event[start:end]
        messages = []
        for kind, variant, user_index, (timestamp_ms, item_id, action, surface) in zip(
            plan.kind[start:end].tolist(),
            plan.variant[start:end].tolist(),
            log.user_index[event].tolist(),
            log.records[event].tolist(),
            strict=True,
        ):
            user = users[user_index]
            value: bytes | None
            if kind == Kind.MALFORMED:
                value = _MALFORMED[variant % len(_MALFORMED)](
                    {
                        "user_id": user,
                        "item_id": item_id,
                        "action": actions[action],
                        "surface": surfaces[surface],
                        "timestamp_ms": timestamp_ms,
                    }
                )
            else:
                value = encode_engagement(
                    user, item_id, actions[action], surfaces[surface], timestamp_ms, self._encoding
                )
            key = user if self._key_by_user else None
            messages.append({"value": value, "key": key, "callback": callbacks[kind]})
        return messages


def _report(sender: Sender, stopped: bool = False) -> ReplayReport:
    delivered = sender.delivered
    events = delivered[Kind.EVENT] + delivered[Kind.LATE]
    seconds = max(sender.last_ns - sender.first_ns, 0) / 1e9
    return ReplayReport(
        events_sent=events,
        duplicates_sent=delivered[Kind.DUPLICATE],
        late_sent=delivered[Kind.LATE],
        malformed_sent=delivered[Kind.MALFORMED],
        first_ms=sender.first_ns // 1_000_000,
        last_ms=sender.last_ns // 1_000_000,
        seconds=seconds,
        events_per_s=events / seconds if seconds else 0.0,
        stopped=stopped,
    )


@contextmanager
def _interrupt_sets(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C sets `stop`, once, unless somebody handles SIGINT. As an exception it could fall into a delivery report's count."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def interrupted(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
