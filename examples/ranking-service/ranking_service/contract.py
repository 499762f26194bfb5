"""What a request says, and what an answer."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

MAX_BODY_BYTES = 1 << 20
_I64 = Meta(ge=-(1 << 63), le=(1 << 63) - 1)


class RankRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    Attributes:
        user: id as producers send it.
        candidates: item ids.
    """

    user: Annotated[str, Meta(min_length=1, max_length=256)]
    candidates: Annotated[list[Annotated[int, _I64]], Meta(min_length=1, max_length=4096)]


class RankAnswer(msgspec.Struct, frozen=True):
    """
    Attributes:
        status: of the user's state: present, stale, not_found, invalid; unavailable if it was not read in time.
        age_ms, length: of the state; None and 0 without one.
        scored_by: "model", or "popularity" where there was no usable state or no time.
        fallback: why not by the model: not_found, invalid, unavailable, deadline or error; empty if by the model.
        scores: one for each candidate, in their order. Scores of the two kinds do not compare.
    """

    user: str
    status: str
    age_ms: int | None
    length: int
    scored_by: str
    fallback: str
    scores: list[float]
