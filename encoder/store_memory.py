"""States in this process, by the same rule and in the same bytes as in Redis: for `slipstream simulate` and for tests."""

from __future__ import annotations

from collections.abc import Sequence

from encoder.store import Invalid, Loaded, Outcome, Write, base_revision, is_newer, read_value
from schemas.state import (
    NO_REVISION,
    OFFSET_AT,
    PARTITION_AT,
    REVISION_AT,
    TOPIC_AT,
    Fence,
    Kind,
    StateLayout,
    encode_header,
)


class MemoryStateStore:
    """A `StateStore` (encoder/store.py). Nothing expires.

    Attributes:
        values: user -> value, as in Redis.
    """

    def __init__(self, layout: StateLayout) -> None:
        self.layout = layout
        self.values: dict[bytes, bytes] = {}

    def load(self, users: Sequence[bytes]) -> list[Loaded]:
        return [self._read(user) for user in users]

    def apply(self, writes: Sequence[Write]) -> list[Outcome]:
        return [self._write(write) for write in writes]

    def _read(self, user: bytes) -> Loaded:
        value = self.values.get(user)
        return None if value is None else read_value(value, self.layout, user.decode(errors="replace"))

    def _write(self, write: Write) -> Outcome:
        stored, layout = self.values.get(write.user, b""), self.layout
        revision = stored[slice(*REVISION_AT)]
        if not isinstance(write.base, Invalid):
            if len(stored) >= PARTITION_AT[1] and is_newer(_raw_fence(stored), write.header.fence):
                return Outcome.SUPERSEDED
            revision = revision or NO_REVISION
        if revision != base_revision(write.base):
            return Outcome.CONFLICT
        encoded = encode_header(write.header, layout)
        if write.header.kind is Kind.DELETED:
            self.values[write.user] = encoded
            return Outcome.OK
        end = layout.value_bytes(write.kept) if write.kept else len(encoded)
        if write.kept and len(stored) < end:
            return Outcome.CONFLICT
        value = encoded + stored[len(encoded) : end] if write.kept else encoded
        value += write.slots.tobytes()
        if len(stored) == layout.value_bytes(write.header.capacity) and write.kept:
            value += stored[len(value) :]  # in place: what is behind the last slot stays
        self.values[write.user] = value + bytes(layout.value_bytes(write.header.capacity) - len(value))
        return Outcome.OK


def _raw_fence(value: bytes) -> Fence:
    """As the script reads it: unverified."""
    return Fence(
        value[slice(*TOPIC_AT)],
        int.from_bytes(value[slice(*PARTITION_AT)], "little"),
        int.from_bytes(value[slice(*OFFSET_AT)], "little", signed=True),
    )
