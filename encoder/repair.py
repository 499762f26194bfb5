"""Making states anew that are wrong although they can be read: `slipstream verify --repair`.

Whatever a state's slots say, they are not built upon: all events of the user's sequence are encoded afresh. The rule of writing
(encoder/store.py) holds: what a live encoder writes meanwhile stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from encoder.engine import Update, to_write, unix_ms
from encoder.refresh import Refresher, Want
from encoder.store import Invalid, Loaded, Outcome, StateStore, base_fence, base_revision, is_newer

_AT_ONCE = 64


class Repaired(NamedTuple):
    """
    Attributes:
        done: users whose states were made anew.
        overtaken: users whose states were written by someone else meanwhile: look at them again.
    """

    done: list[bytes]
    overtaken: list[bytes]


def repair(refresher: Refresher, store: StateStore, wrong: Sequence[tuple[Update, Loaded]]) -> Repaired:
    """Make the states of these users anew, from their sequences.

    Args:
        wrong: what the changelog holds of each user, and what the store held BEFORE the changelog was read. So a state whose
            fence is ahead of the user's newest record was written from no record of this user: it is replaced although it looks
            newer.

    Raises:
        UnavailableError: the store cannot be reached. Call again.
    """
    repaired = Repaired([], [])
    for at in range(0, len(wrong), _AT_ONCE):
        some = wrong[at : at + _AT_ONCE]
        rows = refresher.refresh([Want(update.user, update.records, None) for update, _ in some])
        now_ms = unix_ms()
        writes = [
            to_write(update, _judged(base, update), row, store.layout, now_ms)
            for (update, base), row in zip(some, rows, strict=True)
        ]
        for (update, _), outcome in zip(some, store.apply(writes), strict=True):
            (repaired.done if outcome is Outcome.OK else repaired.overtaken).append(update.user)
    return repaired


def _judged(base: Loaded, update: Update) -> Loaded:
    """A state with a fence that cannot be counts as damaged: then its fence keeps nothing out."""
    fence = base_fence(base)
    if fence is not None and is_newer(fence, update.fence):
        return Invalid(
            base_revision(base), f"its fence {fence.offset} is ahead of the changelog, {update.fence.offset}"
        )
    return base
