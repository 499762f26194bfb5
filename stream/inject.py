"""What a replay sends beside the clean log, and in which order: duplicates, late events, malformed messages. Pure and seeded."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigError


class Kind(IntEnum):
    """What a message of the plan is."""

    EVENT = 0  # an event, in its place
    LATE = 1  # an event, after its place: it was held back
    DUPLICATE = 2  # an event once more
    MALFORMED = 3  # a message more, which nobody can read


@dataclass(frozen=True)
class InjectConfig:
    """Shares of the number of events, each from 0 to 1.

    Attributes:
        duplicates: events that are sent twice: half of them at once, half up to `max_delay_events` events later.
        late: events that are held back and sent 1 to `max_delay_events` events later.
        malformed: messages more, of all kinds in turn (stream.malformed). They never take an event's place.
        max_delay_events: how much later, at most.
        seed: same seed, same plan.
    """

    duplicates: float = 0.0
    late: float = 0.0
    malformed: float = 0.0
    max_delay_events: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("duplicates", "late", "malformed"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise ConfigError(f"the share of {name} to inject must be from 0 to 1, not {share}")
        if self.max_delay_events < 1:
            raise ConfigError(f"max_delay_events must be at least 1, not {self.max_delay_events}")


class Plan(NamedTuple):
    """m messages in the order in which they are sent.

    Attributes:
        kind: `(m,)` u8, Kind.
        event: `(m,)` i64, index into the log: the event that is sent, or the one that a malformed message is made from.
        place: `(m,)` i64, ascending: the log's index at whose time the message is due. A clean event's place is its own.
        variant: `(m,)` i64: a malformed message's number, from 0; else -1.
    """

    kind: NDArray[np.uint8]
    event: NDArray[np.int64]
    place: NDArray[np.int64]
    variant: NDArray[np.int64]


def plan_messages(events: int, config: InjectConfig) -> Plan:
    """The plan for a log of so many events: each once as EVENT or LATE, the rest added. Shares are met to the nearest number."""
    rng = np.random.default_rng(config.seed)
    duplicates, late, malformed = (
        rng.choice(events, round(share * events), replace=False)
        for share in (config.duplicates, config.late, config.malformed)
    )
    # What is due at the same place goes out in this order: the event there, late ones, duplicates, malformed messages.
    place_of = np.arange(events)
    kind_of = np.full(events, Kind.EVENT, np.uint8)
    place_of[late] += rng.integers(1, config.max_delay_events, len(late), endpoint=True)
    kind_of[late] = Kind.LATE
    later = rng.integers(1, config.max_delay_events, len(duplicates), endpoint=True)
    later[rng.random(len(duplicates)) < 0.5] = 0  # at once
    place = np.concatenate([place_of, place_of[duplicates] + later, malformed])
    place = np.minimum(place, max(events - 1, 0))
    kind = np.concatenate(
        [
            kind_of,
            np.full(len(duplicates), Kind.DUPLICATE, np.uint8),
            np.full(len(malformed), Kind.MALFORMED, np.uint8),
        ]
    )
    event = np.concatenate([np.arange(events), duplicates, malformed])
    order = np.lexsort((kind, place))
    variant = np.full(len(order), -1)
    plan_kind = kind[order]
    variant[plan_kind == Kind.MALFORMED] = np.arange(len(malformed))
    return Plan(plan_kind, event[order], place[order], variant)
