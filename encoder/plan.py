"""The plan of a refresh: which slots of a state stay, and which events are encoded on top of them.

Slot i of a state is a function of events 0 to i alone (causal decoder), so a state is a cache whose slots say what they hold.
Append, late event, deletion, re-anchoring and a new model are one rule: keep the longest common prefix of the state's events and
the wanted events, encode the rest.

The window. Positions are learned and absolute, so a window cannot slide: it is anchored at an event and grows until it is full
(`capacity`), then it is anchored anew at the newest `keep` events. On an append-only stream that happens once in
`capacity - keep + 1` events. The hysteresis needs the sequence to reach as far back as a full window: a sequence table whose
capacity is below the model's context would anchor anew with every event.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import numpy as np

from schemas.sequence import RECORD_BYTES, Records


class PlanKind(StrEnum):
    """What a refresh does. Also a metric label."""

    HIT = "hit"  # the state holds the wanted events already
    APPEND = "append"  # every slot stays
    SUFFIX = "suffix"  # some slots stay
    FULL = "full"  # no slot stays
    DELETE = "delete"  # there is no event


class Plan(NamedTuple):
    """
    Attributes:
        kept: slots of the state that stay; a common prefix of its events and of `wanted`.
        wanted: `(n,)` of RECORD, the events of the new state: a suffix of the sequence, a view of it.
    """

    kind: PlanKind
    kept: int
    wanted: Records

    @property
    def new_events(self) -> Records:
        """`(n - kept,)` of RECORD, the events to encode."""
        return self.wanted[self.kept :]


def plan(state_events: Records, sequence: Records, capacity: int = 256, keep: int = 192) -> Plan:
    """Plan the refresh of one user.

    Args:
        state_events: `(n,)` of RECORD, what the state holds; empty if there is none.
        sequence: `(m,)` of RECORD, the user's sequence; empty to delete the state.
        capacity: most events of a state.
        keep: events that remain when a full window is anchored anew; at least min(keep, m) are always held.
    """
    if not len(sequence):
        return Plan(PlanKind.DELETE, 0, sequence)
    if not len(state_events):
        return Plan(PlanKind.FULL, 0, _anchor(sequence, capacity, keep))
    held, asked = state_events.tobytes(), sequence.tobytes()
    wanted = sequence[_start(held, asked, capacity, keep) :]
    kept = _common_prefix(held, asked[len(asked) - len(wanted) * RECORD_BYTES :])
    if kept == len(wanted):
        if kept == len(state_events):
            return Plan(PlanKind.HIT, kept, wanted)
        # The newest events were deleted. No slot is missing, but the user embedding belongs to the last event and is not in
        # its slot: that one event is encoded again.
        kept -= 1
    if kept == 0:
        return Plan(PlanKind.FULL, 0, _anchor(sequence, capacity, keep))
    return Plan(PlanKind.APPEND if kept == len(state_events) else PlanKind.SUFFIX, kept, wanted)


def _anchor(sequence: Records, capacity: int, keep: int) -> Records:
    """A fresh window, with room to grow unless the sequence is about to fill it anyway."""
    return sequence if len(sequence) < capacity else sequence[-keep:]


def _start(held: bytes, asked: bytes, capacity: int, keep: int) -> int:
    """Where in the sequence the window begins: at the state's first event, if a valid window begins there."""
    m = len(asked) // RECORD_BYTES
    start = _find(held[:RECORD_BYTES], asked)
    if start >= 0 and min(keep, m) <= m - start <= capacity:
        return start
    return 0 if m < capacity else m - keep


def _find(record: bytes, records: bytes) -> int:
    """The index of a record, -1 if it is not there."""
    at = records.find(record)
    while at > 0 and at % RECORD_BYTES:  # the same bytes across two records
        at = records.find(record, at + 1)
    return at // RECORD_BYTES


def _common_prefix(a: bytes, b: bytes) -> int:
    """How many whole records two packed arrays agree on from their beginning."""
    size = min(len(a), len(b))
    if a[:size] == b[:size]:  # the usual case: append or hit
        return size // RECORD_BYTES
    differ = np.frombuffer(a, np.uint8, size) != np.frombuffer(b, np.uint8, size)
    return int(differ.argmax()) // RECORD_BYTES
