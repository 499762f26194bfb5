"""Where states live, and the rule by which they are replaced.

A write names what its plan was made from: the revision that it read. It goes through only if that revision is still there, so
a write that keeps slots can never put new slots on top of other ones than those it was computed from. The rules, in order:

1. The stored fence has our topic id and partition and a higher offset: SUPERSEDED. Something newer is there, all is well.
2. The stored revision is not the one that the write names: CONFLICT. Read again, plan again.
3. Otherwise the write is done as a whole: OK.

Offsets of another topic id or partition say nothing about order (the topic was made anew, or has more partitions now); then the
revision alone decides. A value that cannot be read (`Invalid`) may hold anything where its fence should be, so a write that heals
it skips rule 1; it names the bytes found in the place of the revision, so it never hits a state that someone else healed before.

A delete is a write too: its marker has a fence and a revision, so that a late writer cannot bring the user back while it lasts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.errors import StateError
from schemas.state import NO_REVISION, REVISION_AT, Fence, Header, Kind, State, StateLayout, decode_header, decode_slots


class Deleted(NamedTuple):
    """The marker of a delete."""

    header: Header


class Invalid(NamedTuple):
    """A stored value that is no state of this model: damaged, truncated, of another version, or no string at all.

    Attributes:
        found: the bytes in the place of the revision; fewer than 8 if the value ends before.
        reason: what is wrong with it.
    """

    found: bytes
    reason: str


#: What is stored for a user; None = nothing.
Loaded = State | Deleted | Invalid | None


class Readable(Protocol):
    """A state or a marker, whatever it has beside its header."""

    @property
    def header(self) -> Header: ...


#: What a write was made from.
Base = Readable | Invalid | None


class Write(NamedTuple):
    """One user's new state.

    Attributes:
        base: what the plan was made from.
        header: the new header, with a fresh revision; of kind DELETED for a delete.
        kept: slots of the stored value that stay; 0 replaces the value.
        slots: `(length - kept,)` of StateLayout.slot, those that follow.
    """

    user: bytes
    base: Base
    header: Header
    kept: int
    slots: NDArray[np.void]


class Outcome(IntEnum):
    OK = 0
    CONFLICT = 1
    SUPERSEDED = 2


class StateStore(Protocol):
    """The states of one model."""

    layout: StateLayout

    def load(self, users: Sequence[bytes]) -> list[Loaded]:
        """What is stored, verified, in the order of `users`; one round trip.

        Raises:
            UnavailableError: the store cannot be reached; retriable.
        """

    def apply(self, writes: Sequence[Write]) -> list[Outcome]:
        """Do the writes by the rule above, each for itself; one round trip.

        Raises:
            UnavailableError: the store cannot be reached; some of the writes may have been done. Repeat the call: a write that
                was done answers CONFLICT then, and its own revision is what a reload finds.
        """


def fresh_revision() -> bytes:
    return os.urandom(len(NO_REVISION))


def base_revision(base: Base) -> bytes:
    """What a write from this base must find in the place of the revision."""
    if base is None:
        return NO_REVISION
    return base.found if isinstance(base, Invalid) else base.header.revision


def base_fence(base: Base) -> Fence | None:
    """The fence of a state or marker; None where nothing readable is."""
    return None if base is None or isinstance(base, Invalid) else base.header.fence


def is_newer(fence: Fence, than: Fence) -> bool:
    """Whether the fence is certainly newer: a higher offset of the same partition of the same topic."""
    return fence[:2] == than[:2] and fence.offset > than.offset


def read_value(value: bytes, layout: StateLayout, where: str) -> Loaded:
    """A stored value as what it is; never raises for what it holds."""
    try:
        header = decode_header(value, layout, where)
        if header.kind is Kind.DELETED:
            return Deleted(header)
        return State(header, decode_slots(value, header, layout, where))
    except StateError as error:
        return Invalid(value[slice(*REVISION_AT)], str(error))
