"""What a ranker gets for each user that it asks for: a row, whatever Redis holds. Pure: bytes in, rows out.

The worst that one user's bytes can do is to make that user's own row INVALID.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ranker.cache import Decoded
from schemas.errors import StateError
from schemas.state import Kind, State, StateLayout, decode_header, decode_slots
from schemas.state_headers import decode_headers

#: From so many values on it is faster to decode their headers together.
_MANY = 12


class Status(StrEnum):
    """What a row is good for."""

    #: A verified state that is young enough.
    PRESENT = "present"
    #: A verified state, older than the caller's limit: usable, and the caller knows how old it is.
    STALE = "stale"
    #: No state: a new user, one who was forgotten, or one whose state expired.
    NOT_FOUND = "not_found"
    #: Something is there that cannot be trusted; `why` tells. The encoder replaces it with the user's next event.
    INVALID = "invalid"


class Row(NamedTuple):
    """One user's answer.

    Attributes:
        user: the id as it was asked for.
        status: PRESENT and STALE rows have everything below, the others nothing.
        age_ms: now - the state's `arrived_ms`: every event that reached Kafka more than this long ago is in the state. For a user
            with nothing newer this grows although nothing is missing: it bounds what the state can lack, and is not a fault.
        length: events in the state.
        embedding: `(d,)` f16, unit length, for retrieval.
        state: the verified state with its slots, for the crossing; None if only embeddings were asked for.
        why: what is wrong, for people; empty if nothing is.
    """

    user: str
    status: Status
    age_ms: int | None = None
    length: int = 0
    embedding: NDArray[np.float16] | None = None
    state: State | None = None
    why: str = ""

    @property
    def usable(self) -> bool:
        """There is a verified state, of whatever age."""
        return self.status is Status.PRESENT or self.status is Status.STALE


def read_rows(
    users: Sequence[str],
    keys: Sequence[bytes],
    values: Sequence[bytes],
    layout: StateLayout,
    now_ms: int,
    max_age_ms: int | None,
    embedding_only: bool,
    keep: Callable[[bytes, Decoded], None] | None = None,
) -> list[Row]:
    """The rows of values that Redis returned, one each. Never raises for what a value holds.

    Args:
        keys: where the values were, for messages.
        values: whole ones, or at least their first `layout.header_bytes` bytes if `embedding_only`.
        max_age_ms: older states are STALE; None = no limit.
        keep: called with each key and what was verified.
    """
    rows = []
    headers = decode_headers(values, layout) if len(values) >= _MANY else [None] * len(values)
    for user, key, value, header in zip(users, keys, values, headers, strict=True):
        try:
            if header is None:
                header = decode_header(value, layout, _where(key))  # says what is wrong
            if header.kind is Kind.DELETED:
                rows.append(Row(user, Status.NOT_FOUND, why=f"{_where(key)}: the user was forgotten"))
                continue
            state = None if embedding_only else State(header, decode_slots(value, header, layout, _where(key)))
        except StateError as error:
            rows.append(Row(user, Status.INVALID, why=str(error)))
            continue
        found = Decoded(header, state)
        if keep is not None:
            keep(key, found)
        rows.append(usable_row(user, found, now_ms, max_age_ms, key))
    return rows


def usable_row(user: str, found: Decoded, now_ms: int, max_age_ms: int | None, key: bytes) -> Row:
    """The row of a verified value.

    Args:
        max_age_ms: older states are STALE; None = no limit.
    """
    header = found.header
    age_ms = max(0, now_ms - header.arrived_ms)  # clocks of two machines may differ by a little
    status, why = Status.PRESENT, ""
    if max_age_ms is not None and age_ms > max_age_ms:
        status, why = Status.STALE, f"{_where(key)}: {age_ms} ms old, the limit is {max_age_ms} ms"
    return Row(user, status, age_ms, header.length, header.embedding, found.state, why)


def _where(key: bytes) -> str:
    return key.decode(errors="replace")
