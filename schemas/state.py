"""The state: what a ranker reads. The value of one Redis key per user and model. For other languages: docs/state-format.md.

Layout, little endian, version 2. A header of 128 bytes, the user embedding, then slots:

    offset  bytes
    0       4     magic "SLPS"
    4       1     version
    5       1     kind: 1 = state; 2 = deleted (a short-lived marker: no embedding, no slots)
    6       2     header_bytes, u16: 128 + 2 * embedding_dim, where the slots begin
    8       8     model id
    16      8     revision: random, new with each write; a writer names the one that its plan was made from
    24      16    fence: id of the changelog topic (Kafka's topic UUID)
    40      8     fence: offset of the changelog record that this state reflects, i64
    48      4     fence: partition of the changelog, u32
    52      2     length, u16: slots in use
    54      2     capacity, u16: slots that the value has room for; those past `length` hold anything
    56      2     layers, u16
    58      2     kv_heads, u16
    60      2     head_dim, u16
    62      2     embedding_dim, u16
    64      4     slot_bytes, u32
    68      1     dtype of keys and values: 2 = int8 with scales of 8 bits
    69      3     reserved, 0
    72      8     newest_event_ms, i64: time of the newest event in the state; 0 if deleted
    80      8     arrived_ms, i64: every event that reached the broker until then is in the state (it may hold later ones)
    88      8     encoded_ms, i64: when the state was written
    96      4     slots_crc, u32: CRC-32 (IEEE) of slots [0, length)
    100     24    reserved, 0
    124     4     header_crc, u32: CRC-32 (IEEE) of bytes [0, 124) and the embedding
    128     2 d   user embedding, fp16, unit length

    slot i at header_bytes + i * slot_bytes, the event that it encodes and its keys and values:
    0       20                record (schemas.sequence.RECORD)
    20      2 L G D           int8 [keys or values][layer][kv head][head_dim]
            2 L G             u8 codes of scales [keys or values][layer][kv head] (schemas.scales): x = int8 * scale

CRC-32 is extendable, so an append continues `slots_crc` over its new slots alone, and a reader verifies a state in one call.
Slots are in event order; slot i was computed from events 0 to i only, so it stays valid as long as they do.

Version 1 had scales of 16 bits, dtype 1. Its values are as good as none: the encoder makes them anew.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.bundle import ModelShape
from schemas.capacity import capacity_for
from schemas.errors import BundleError, StateError
from schemas.sequence import RECORD, Records

MAGIC = b"SLPS"
VERSION = 2
FIXED_BYTES = 128
DTYPE_INT8 = 2
_HEADER = struct.Struct("<4sBBH8s8s16sqIHHHHHHIB3xqqqI24xI")
_SIZES = struct.Struct("<HHHH")  # layers, kv_heads, head_dim, embedding_dim
_SIZES_AT = 56
_MAX_LENGTH = (1 << 16) - 1
_CRC = struct.Struct("<I")
_CRC_AT = FIXED_BYTES - _CRC.size
NO_REVISION = bytes(8)  # what a writer names when its plan was made from no state

# Where the write script (encoder/store) finds the fields that it compares, as [start, end) of the value.
REVISION_AT = (16, 24)
TOPIC_AT = (24, 40)
OFFSET_AT = (40, 48)
PARTITION_AT = (48, 52)

assert _HEADER.size == FIXED_BYTES


class Kind(IntEnum):
    STATE = 1
    DELETED = 2


class Fence(NamedTuple):
    """Orders the writes of a user: the changelog record that a state reflects. Offsets compare within one topic id only."""

    topic_id: bytes  # 16 bytes
    partition: int
    offset: int


class Header(NamedTuple):
    """A decoded header. Times are Unix milliseconds.

    Attributes:
        embedding: `(d,)` f16, unit length; `(0,)` if deleted.
    """

    kind: Kind
    model_id: str
    revision: bytes
    fence: Fence
    length: int
    capacity: int
    newest_event_ms: int
    arrived_ms: int
    encoded_ms: int
    slots_crc: int
    embedding: NDArray[np.float16]


@dataclass(frozen=True)
class StateLayout:
    """The layout's sizes for one model."""

    shape: ModelShape
    model_id: str

    @cached_property
    def slot(self) -> np.dtype[Any]:
        """A slot as a structured dtype: `event` RECORD, `kv` int8 (2, L, G, D), `scale_codes` u8 (2, L, G)."""
        s = self.shape
        return np.dtype(
            [
                ("event", RECORD),
                ("kv", "i1", (2, s.layers, s.kv_heads, s.head_dim)),
                ("scale_codes", "u1", (2, s.layers, s.kv_heads)),
            ]
        )

    @cached_property
    def slot_bytes(self) -> int:
        return self.slot.itemsize

    @cached_property
    def header_bytes(self) -> int:
        """The fixed header and the embedding: what a reader fetches who needs only the embedding (GETRANGE 0 header_bytes-1)."""
        return FIXED_BYTES + 2 * self.shape.d_model

    def value_bytes(self, capacity: int) -> int:
        return self.header_bytes + capacity * self.slot_bytes

    def capacity_for(self, length: int) -> int:
        """Slots that a value of `length` slots gets room for."""
        return capacity_for(length, self.header_bytes, self.slot_bytes, self.shape.context)


class State(NamedTuple):
    """A decoded and verified state.

    Attributes:
        header: its header, `kind` STATE.
        slots: `(length,)` of StateLayout.slot, a read-only view of the value.
    """

    header: Header
    slots: NDArray[np.void]

    @property
    def events(self) -> Records:
        """`(length,)` of RECORD."""
        return self.slots["event"]

    @property
    def value_bytes(self) -> int:
        """Of the value as it is stored, its room for more slots included; as StateLayout.value_bytes says."""
        return FIXED_BYTES + self.header.embedding.nbytes + self.header.capacity * self.slots.itemsize


def encode_header(header: Header, layout: StateLayout) -> bytes:
    """The fixed header and the embedding, with its checksum."""
    deleted = header.kind is Kind.DELETED
    embedding = b"" if deleted else np.asarray(header.embedding, "<f2").tobytes()
    s = layout.shape
    fixed = _HEADER.pack(
        MAGIC,
        VERSION,
        header.kind,
        FIXED_BYTES + len(embedding),
        bytes.fromhex(header.model_id),
        header.revision,
        header.fence.topic_id,
        header.fence.offset,
        header.fence.partition,
        header.length,
        header.capacity,
        s.layers,
        s.kv_heads,
        s.head_dim,
        len(embedding) // 2,
        layout.slot_bytes,
        DTYPE_INT8,
        header.newest_event_ms,
        header.arrived_ms,
        header.encoded_ms,
        header.slots_crc,
        0,
    )[:_CRC_AT]
    return fixed + _CRC.pack(zlib.crc32(embedding, zlib.crc32(fixed))) + embedding


def decode_header(value: bytes | memoryview, layout: StateLayout | None, where: str = "state") -> Header:
    """Decode and verify the header and the embedding of a value, or of its first `layout.header_bytes` bytes.

    Without a layout it is verified as far as it goes by itself, of whatever model it is.

    Raises:
        StateError: truncated, damaged, of another version, model or shape. `where` (the key) begins the message.
    """
    if len(value) < FIXED_BYTES:
        raise StateError(f"{where}: {len(value)} bytes are too few for a state, its header alone has {FIXED_BYTES}")
    (
        magic,
        version,
        kind,
        header_bytes,
        model_id,
        revision,
        topic_id,
        offset,
        partition,
        length,
        capacity,
        layers,
        kv_heads,
        head_dim,
        embedding_dim,
        slot_bytes,
        dtype,
        newest_event_ms,
        arrived_ms,
        encoded_ms,
        slots_crc,
        header_crc,
    ) = _HEADER.unpack_from(value)
    if magic != MAGIC:
        raise StateError(f"{where}: does not begin with {MAGIC!r}: this is no state")
    if version != VERSION:
        advice = "its writer is older, the encoder makes it anew" if version < VERSION else "update this reader"
        raise StateError(f"{where}: state version {version}, this build reads {VERSION}: {advice}")
    if header_bytes != FIXED_BYTES + 2 * embedding_dim or len(value) < header_bytes:
        raise StateError(
            f"{where}: {len(value)} bytes, its header speaks of {header_bytes} with the embedding: it is truncated or damaged"
        )
    embedding = np.frombuffer(value, "<f2", embedding_dim, FIXED_BYTES)
    if zlib.crc32(embedding.data, zlib.crc32(value[:_CRC_AT])) != header_crc:
        raise StateError(f"{where}: the header's checksum does not match: it is damaged")
    if kind not in (Kind.STATE, Kind.DELETED) or dtype != DTYPE_INT8:
        raise StateError(f"{where}: kind {kind}, dtype {dtype}: its writer is broken")
    if kind == Kind.STATE and not 0 < length <= capacity:
        raise StateError(f"{where}: length {length}, capacity {capacity}: its writer is broken")
    if layout is not None:
        if model_id.hex() != layout.model_id:
            raise StateError(f"{where}: made by model {model_id.hex()}, not {layout.model_id}")
        s = layout.shape
        expected = (s.layers, s.kv_heads, s.head_dim, layout.slot_bytes, s.d_model if kind == Kind.STATE else 0)
        if (layers, kv_heads, head_dim, slot_bytes, embedding_dim) != expected:
            raise StateError(
                f"{where}: (layers, kv_heads, head_dim, slot_bytes, embedding_dim) are "
                f"{(layers, kv_heads, head_dim, slot_bytes, embedding_dim)}, the model has {expected}"
            )
        # A longer state than the model's context would make its graphs fail, and with them every row of their batch.
        if kind == Kind.STATE and length > s.context:
            raise StateError(f"{where}: length {length}, the model's context is {s.context}: its writer is broken")
    return Header(
        Kind(kind),
        model_id.hex(),
        revision,
        Fence(topic_id, partition, offset),
        length,
        capacity,
        newest_event_ms,
        arrived_ms,
        encoded_ms,
        slots_crc,
        embedding,
    )


def read_layout(value: bytes | memoryview, where: str = "state") -> StateLayout:
    """The layout that a state describes by itself, for readers that have no bundle.

    It has all sizes; what a state does not tell (context, rows of the item tables) is not the model's.

    Raises:
        StateError: as `decode_header`; or it is a deleted user's marker, or its sizes are no model's.
    """
    if decode_header(value, None, where).kind is Kind.DELETED:
        raise StateError(f"{where}: a marker of a delete describes no state")
    layers, kv_heads, head_dim, embedding_dim = _SIZES.unpack_from(value, _SIZES_AT)
    try:
        shape = ModelShape(layers, embedding_dim, embedding_dim // max(1, head_dim), kv_heads, context=_MAX_LENGTH)
    except (BundleError, ZeroDivisionError) as error:
        raise StateError(f"{where}: its sizes are no model's: {error}") from None
    layout = StateLayout(shape, bytes(value[8:16]).hex())
    decode_header(value, layout, where)
    return layout


def decode_slots(
    value: bytes | memoryview, header: Header, layout: StateLayout, where: str = "state"
) -> NDArray[np.void]:
    """The `(length,)` slots of a whole value, verified; a read-only view.

    Raises:
        StateError: the value is shorter than its slots, or they do not match their checksum.
    """
    end = layout.value_bytes(header.length)
    if len(value) < end:
        raise StateError(f"{where}: {len(value)} bytes, {header.length} slots need {end}: it is truncated")
    if zlib.crc32(memoryview(value)[layout.header_bytes : end]) != header.slots_crc:
        raise StateError(f"{where}: the slots' checksum does not match: it is damaged")
    return np.frombuffer(value, layout.slot, header.length, layout.header_bytes)


def decode_state(value: bytes, layout: StateLayout, where: str = "state") -> State | None:
    """Decode and verify a whole value; None for a deleted user.

    Raises:
        StateError: as `decode_header` and `decode_slots`.
    """
    header = decode_header(value, layout, where)
    if header.kind is Kind.DELETED:
        return None
    return State(header, decode_slots(value, header, layout, where))


def encode_state(header: Header, slots: NDArray[np.void], layout: StateLayout) -> bytes:
    """A whole value, padded to its capacity."""
    content = encode_header(header, layout) + slots.tobytes()
    return content + bytes(layout.value_bytes(header.capacity) - len(content))
