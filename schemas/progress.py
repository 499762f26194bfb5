"""The progress mark: up to where a partition of the changelog is in a model's states, kept in the Redis that holds them.

Layout, little endian, 24 bytes:

    offset  bytes
    0       16    id of the changelog topic (Kafka's topic UUID)
    16      8     next_offset, i64: every record before it is in a state, or was overtaken by a newer one

A Redis that lost writes lost the newest ones: a snapshot, a cut log and a replica are all what it was at some moment before.
So the mark that it still has says from where on records must be read again, and none says: from the beginning.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_MARK = struct.Struct("<16sq")


class Mark(NamedTuple):
    topic_id: bytes  # 16 bytes
    next_offset: int


def encode_mark(mark: Mark) -> bytes:
    return _MARK.pack(*mark)


def decode_mark(value: bytes, topic_id: bytes) -> Mark | None:
    """None for what says nothing about this topic: no mark, one of another topic, or anything else."""
    if len(value) != _MARK.size:
        return None
    mark = Mark(*_MARK.unpack(value))
    return mark if mark.topic_id == topic_id and mark.next_offset >= 0 else None
