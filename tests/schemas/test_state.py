"""States: damage is refused, whole values and headers alone; sizes; the graphs' past."""

from __future__ import annotations

import struct
import zlib

import msgspec
import numpy as np
import pytest

from schemas.bundle import PRESETS
from schemas.errors import StateError
from schemas.state import (
    FIXED_BYTES,
    OFFSET_AT,
    PARTITION_AT,
    REVISION_AT,
    TOPIC_AT,
    Header,
    Kind,
    State,
    StateLayout,
    decode_header,
    decode_slots,
    decode_state,
    encode_header,
    encode_state,
    read_layout,
)
from tests.golden import make
from tests.schemas.damage import assert_refused, flips, golden

WHERE = "slipstream:0123456789abcdef:u-17"
LAYOUT = StateLayout(PRESETS["nano"], make.MODEL_ID)
STATES = ["state.bin", "state-full-step.bin", "state-slack.bin"]
CRC_AT = 124


def decode(value: bytes) -> State | None:
    return decode_state(value, LAYOUT, WHERE)


def decode_head(value: bytes) -> Header:
    return decode_header(value, LAYOUT, WHERE)


def used_bytes(value: bytes) -> int:
    return LAYOUT.value_bytes(decode_header(value, LAYOUT).length)


def resealed(value: bytes) -> bytes:
    """With the header checksum that its bytes have: what a broken writer, not a broken wire, would make."""
    (header_bytes,) = struct.unpack_from("<H", value, 6)
    crc = zlib.crc32(value[FIXED_BYTES:header_bytes], zlib.crc32(value[:CRC_AT]))
    return value[:CRC_AT] + struct.pack("<I", crc) + value[FIXED_BYTES:]


# Damage


@pytest.mark.parametrize("name", STATES)
def test_every_truncation_of_what_is_in_use_is_refused(name: str) -> None:
    value = golden(name)
    for length in range(used_bytes(value)):
        assert_refused(decode, value[:length], StateError, f"{length} of {len(value)} bytes", WHERE)


@pytest.mark.parametrize("name", STATES)
def test_what_lies_behind_the_length_is_nobodys_business(name: str) -> None:
    value = golden(name)
    used = used_bytes(value)
    whole = decode(value)
    for tail in (b"", b"\xff" * 7, bytes(4096)):
        got = decode(value[:used] + tail)
        assert whole is not None
        assert got is not None
        assert got.slots.tobytes() == whole.slots.tobytes()


@pytest.mark.parametrize("name", [*STATES, "state-deleted.bin"])
def test_every_flipped_bit_of_what_is_in_use_is_refused(name: str) -> None:
    value = golden(name)
    used = used_bytes(value) if name != "state-deleted.bin" else FIXED_BYTES
    for byte, bit, damaged in flips(value, 0, used):
        assert_refused(decode, damaged, StateError, f"byte {byte}, bit {bit}", WHERE)


def test_a_header_alone_is_as_well_guarded() -> None:
    value = golden("state.bin")[: LAYOUT.header_bytes]
    for byte, bit, damaged in flips(value):
        assert_refused(decode_head, damaged, StateError, f"byte {byte}, bit {bit}", WHERE)
    for length in range(len(value)):
        assert_refused(decode_head, value[:length], StateError, f"{length} of {len(value)} bytes", WHERE)


def test_a_header_alone_has_no_slots() -> None:
    value = golden("state.bin")[: LAYOUT.header_bytes]
    with pytest.raises(StateError, match="3 slots need 712: it is truncated"):
        decode_slots(value, decode_head(value), LAYOUT, WHERE)


def test_swapped_slots_are_refused() -> None:
    value, size = golden("state.bin"), LAYOUT.slot_bytes
    at = LAYOUT.header_bytes
    swapped = value[:at] + value[at + size : at + 2 * size] + value[at : at + size] + value[at + 2 * size :]
    assert_refused(decode, swapped, StateError, "two slots swapped", WHERE)


@pytest.mark.parametrize("crc", [bytes(4), b"\xff" * 4])
def test_no_special_checksum_passes(crc: bytes) -> None:
    value = golden("state.bin")
    assert_refused(decode, value[:CRC_AT] + crc + value[FIXED_BYTES:], StateError, "a header checksum", WHERE)
    assert_refused(decode, resealed(value[:96] + crc + value[100:]), StateError, "a slots checksum", WHERE)


def test_another_version_is_named() -> None:
    with pytest.raises(
        StateError, match="state version 1, this build reads 2: its writer is older, the encoder makes it"
    ):
        decode(golden("state-version-1.bin"))
    value = bytearray(golden("state.bin"))
    value[4] = 3
    with pytest.raises(StateError, match="state version 3, this build reads 2: update this reader"):
        decode(bytes(value))


def test_another_model_is_named() -> None:
    other = StateLayout(PRESETS["nano"], "00112233445566ff")
    with pytest.raises(StateError, match=f"made by model {make.MODEL_ID}, not 00112233445566ff"):
        decode_state(golden("state.bin"), other, WHERE)


@pytest.mark.parametrize("preset", ["small", "medium", "paper"])
def test_another_shape_is_refused(preset: str) -> None:
    with pytest.raises(StateError, match="the model has"):
        decode_state(golden("state.bin"), StateLayout(PRESETS[preset], make.MODEL_ID), WHERE)


@pytest.mark.parametrize(
    ("at", "form", "field", "what"),
    [
        (5, "B", 0, "kind 0"),
        (5, "B", 3, "kind 3"),
        (5, "B", 255, "kind 255"),
        (52, "H", 0, "no slots"),
        (52, "H", 17, "more slots than capacity"),
        (54, "H", 2, "less capacity than slots"),
        (56, "H", 3, "layers"),
        (58, "H", 2, "kv heads"),
        (60, "H", 16, "head dim"),
        (64, "I", 156, "slot bytes"),
        (68, "B", 1, "dtype"),
    ],
)
def test_a_field_that_no_writer_writes_is_refused_though_the_checksum_is_right(
    at: int, form: str, field: int, what: str
) -> None:
    value = bytearray(golden("state.bin"))
    struct.pack_into(f"<{form}", value, at, field)
    assert_refused(decode, resealed(bytes(value)), StateError, what, WHERE)
    assert_refused(decode_head, resealed(bytes(value))[: LAYOUT.header_bytes], StateError, what, WHERE)


def test_a_length_past_the_models_context_is_refused() -> None:
    layout = StateLayout(msgspec.structs.replace(PRESETS["nano"], context=16, keep=12), make.MODEL_ID)
    assert decode_state(golden("state-full-step.bin"), layout) is not None
    with pytest.raises(StateError, match="length 17, the model's context is 16"):
        decode_state(golden("state-slack.bin"), layout, WHERE)


def test_another_embedding_width_is_refused_though_the_checksum_is_right() -> None:
    value = golden("state.bin")
    header_bytes = FIXED_BYTES + 2 * 32
    damaged = bytearray(value[:header_bytes] + value[LAYOUT.header_bytes :])
    struct.pack_into("<H", damaged, 6, header_bytes)
    struct.pack_into("<H", damaged, 62, 32)
    assert_refused(decode, resealed(bytes(damaged)), StateError, "embedding of 32", WHERE)


# A state describes itself


@pytest.mark.parametrize("name", STATES)
def test_a_state_tells_its_layout(name: str) -> None:
    layout = read_layout(golden(name))
    assert layout.model_id == LAYOUT.model_id
    assert (layout.slot, layout.header_bytes) == (LAYOUT.slot, LAYOUT.header_bytes)
    by_itself, by_model = decode_state(golden(name), layout), decode(golden(name))
    assert by_itself is not None
    assert by_model is not None
    assert by_itself.slots.tobytes() == by_model.slots.tobytes()


def test_a_marker_tells_no_layout() -> None:
    assert decode_header(golden("state-deleted.bin"), None, WHERE).kind is Kind.DELETED
    assert_refused(lambda value: read_layout(value, WHERE), golden("state-deleted.bin"), StateError, "a marker", WHERE)


def test_a_damaged_state_tells_no_layout() -> None:
    value = golden("state.bin")[: LAYOUT.header_bytes]
    for byte, bit, damaged in flips(value):
        assert_refused(lambda d: read_layout(d, WHERE), damaged, StateError, f"byte {byte}, bit {bit}", WHERE)


@pytest.mark.parametrize("at", [56, 58, 60])
@pytest.mark.parametrize("size", [0, 5, 65535])
def test_sizes_that_no_model_has_are_refused(at: int, size: int) -> None:
    value = bytearray(golden("state.bin"))
    struct.pack_into("<H", value, at, size)
    assert_refused(lambda d: read_layout(d, WHERE), resealed(bytes(value)), StateError, f"{size} at {at}", WHERE)


# Sizes and places


def test_sizes_are_the_documented_ones() -> None:
    assert (LAYOUT.slot_bytes, LAYOUT.header_bytes) == (152, 256)
    sizes = {
        name: (StateLayout(shape, make.MODEL_ID).slot_bytes, StateLayout(shape, make.MODEL_ID).value_bytes(256))
        for name, shape in PRESETS.items()
    }
    assert sizes == {
        "nano": (152, 39_168),
        "small": (284, 73_088),
        "medium": (548, 140_928),
        "paper": (18740, 4_799_104),
    }


def test_the_write_scripts_offsets_are_those_of_the_layout() -> None:
    value = golden("state.bin")
    header = decode_head(value)
    assert value[slice(*REVISION_AT)] == header.revision
    assert value[slice(*TOPIC_AT)] == header.fence.topic_id
    assert int.from_bytes(value[slice(*OFFSET_AT)], "little") == header.fence.offset
    assert int.from_bytes(value[slice(*PARTITION_AT)], "little") == header.fence.partition


def test_an_append_extends_the_checksum() -> None:
    """What the encoder does on an append: new slots behind the old ones, the running checksum continued over them alone."""
    before, after = decode(golden("state.bin")), decode(golden("state-full-step.bin"))
    assert before is not None
    assert after is not None
    new = after.slots[3:]
    header = after.header._replace(slots_crc=zlib.crc32(new.tobytes(), before.header.slots_crc))
    grown = encode_header(header, LAYOUT) + before.slots.tobytes() + new.tobytes()
    assert grown == golden("state-full-step.bin")


def test_a_whole_value_round_trips_for_every_preset() -> None:
    for name, shape in PRESETS.items():
        layout = StateLayout(shape, make.MODEL_ID)
        slots = np.zeros(5, layout.slot)
        slots["kv"] = np.arange(slots["kv"].size).reshape(slots["kv"].shape) % 255 - 127
        slots["scale_codes"] = 208
        slots["event"]["timestamp_ms"] = range(1, 6)
        state = decode(golden("state.bin"))
        assert state is not None
        header = state.header._replace(
            length=5, slots_crc=zlib.crc32(slots.tobytes()), embedding=np.full(shape.d_model, 0.25, np.float16)
        )
        got = decode_state(encode_state(header, slots, layout), layout, name)
        assert got is not None
        assert got.slots.tobytes() == slots.tobytes()
        np.testing.assert_array_equal(got.header.embedding, header.embedding)
