"""The mix of refreshes that a real log makes: a share of its events, each on top of what its user had done until then.

Each user is met at a random moment of its history and lives through a stretch of it, as long as its history is (a percent of it,
say), so every event of the log is as likely to be in the mix: first events, growing windows and windows anchored anew have the
shares that they have in the log. Users take turns, as they do where there are many of them: replayed in its own order, a log of
few users would bring many events of one user at once, and a worker that meets a backlog would fold them into one refresh.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bench.encoders import Row
from schemas.bundle import ModelShape
from schemas.log import EventLog
from schemas.sequence import NO_RECORDS, Records, Sequence, merge


class LogMix(NamedTuple):
    """Changelog records, in three rounds.

    Attributes:
        anchored: what users with a past begin with.
        grown: those whose window had grown since it was anchored last. With it, windows are as long as in an encoder that has
            been there all the time.
        events: one record an event, users in turn: the mix.
    """

    anchored: list[Row]
    grown: list[Row]
    events: list[Row]


def log_mix(log: EventLog, events: int, shape: ModelShape, rng: np.random.Generator) -> LogMix:
    """About so many of the log's events, at least one; all of them if it has fewer. Keys begin with `log-`: nobody else's do."""
    share = min(1.0, events / len(log))
    order = np.argsort(log.user_index, kind="stable")
    counts = np.bincount(log.user_index, minlength=len(log.users))
    histories = np.split(log.records[order], np.cumsum(counts)[:-1])
    lengths = np.minimum(counts, (counts * share + rng.random(len(counts))).astype(np.int64))
    if not lengths.any():
        lengths[counts.argmax()] = 1
    mix = LogMix([], [], [])
    turns: list[tuple[int, Row]] = []
    for user in rng.permutation(np.flatnonzero(lengths)).tolist():
        key, history, length = b"log-" + log.users[user].encode(), histories[user], int(lengths[user])
        at = int(rng.integers(0, len(history) - length + 1))
        past = _sequence(history[:at])
        grown_by = (at - shape.context - 1) % (shape.context - shape.keep + 1) if at > shape.context else 0
        if at:
            mix.anchored.append((key, _sequence(history[: at - grown_by]).records))
        if grown_by:
            mix.grown.append((key, past.records))
        for turn in range(length):
            past = merge(past, Sequence(0, history[at + turn : at + turn + 1]))
            turns.append((turn, (key, past.records)))
    turns.sort(key=lambda each: each[0])
    mix.events.extend(row for _, row in turns)
    return mix


def _sequence(records: Records) -> Sequence:
    return merge(Sequence(0, NO_RECORDS), Sequence(0, records))
