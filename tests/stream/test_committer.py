"""How much of a backlog goes into one transaction."""

from __future__ import annotations

import numpy as np

from schemas.batch import Batch, encode_batch
from schemas.sequence import RECORD
from stream.batch_queue import Pending
from stream.committer import _decoded
from stream.dead_letters import Provenance


def message(offset: int, *users: str) -> Pending:
    n = len(users)
    batch = Batch(
        [u.encode() for u in users], np.ones(n, "<i8"), np.ones(n, "<i8"), np.zeros(n, "<u4"), np.empty(0, RECORD)
    )
    return Pending(Provenance("t", 0, offset, 0), None, encode_batch(batch), [], lambda: None, lambda: None)


def unreadable(offset: int) -> Pending:
    return message(offset, "u")._replace(value=b"?")


def test_batches_are_taken_while_their_distinct_users_are_few() -> None:
    waiting = [message(0, "a", "b"), message(1, "b", "c"), unreadable(2), message(3, "a", "c"), message(4, "d")]
    some = _decoded(waiting, 3)
    assert (some.taken, len(some.batches), len(some.letters), some.users) == (waiting[:4], 3, 1, 3)
    everything = _decoded(waiting, 4)
    assert (everything.taken, len(everything.batches), everything.users) == (waiting, 4, 4)


def test_one_batch_is_taken_however_large() -> None:
    waiting = [unreadable(0), message(1, "a", "b", "c"), message(2, "a")]
    first = _decoded(waiting, 1)
    assert (first.taken, len(first.batches), first.users) == (waiting[:2], 1, 3)
