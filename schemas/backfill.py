"""The note that an encoder leaves beside an offset that it commits while a partition is backfilled: how far there is to go.

It is the metadata of the committed offset, one JSON object, so that whoever may read the group's offsets can tell progress:

    {"worker":"9f2c1a7b","end":120000,"per_s":1800.5,"left_s":61.2}
"""

from __future__ import annotations

import msgspec


class BackfillNote(msgspec.Struct, frozen=True):
    """
    Attributes:
        worker: which one it is, at random: one that has several partitions leaves as many notes.
        end: the offset at which the backfill of this partition ends; the committed one is where it stands.
        per_s: offsets a second, of all partitions that this worker backfills.
        left_s: seconds until it has backfilled them all; None: it does not know yet.
    """

    worker: str
    end: int
    per_s: float
    left_s: float | None = None


def encode_note(note: BackfillNote) -> str:
    return msgspec.json.encode(note).decode()


def decode_note(metadata: str | None) -> BackfillNote | None:
    """None where there is no note of ours: the partition is not backfilled."""
    if not metadata:
        return None
    try:
        return msgspec.json.decode(metadata, type=BackfillNote)
    except msgspec.DecodeError:
        return None
