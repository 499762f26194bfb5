"""The golden files are what tests/golden/make.py makes, and every encoder and decoder agrees with them."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.batch import Batch, decode_batch, encode_batch
from schemas.bundle import PRESETS, decode_manifest, encode_manifest
from schemas.scales import decode_scales
from schemas.sequence import RECORD, Records, Sequence, decode_sequence, encode_sequence
from schemas.state import Fence, Header, Kind, StateLayout, decode_header, decode_state, encode_header, encode_state
from tests.golden import make
from tests.schemas.damage import GOLDEN, expected, golden

LAYOUT = StateLayout(PRESETS["nano"], make.MODEL_ID)
FIELDS = ("timestamp_ms", "item_id", "action", "surface")


def records_of(described: list[dict[str, int]]) -> Records:
    return np.array([tuple(fields[name] for name in FIELDS) for fields in described], RECORD)


@pytest.mark.parametrize("name", sorted(make.golden()))
def test_files_are_what_the_script_makes(name: str) -> None:
    value, description = make.golden()[name]
    assert golden(name) == value, (
        f"{name} changed: a new layout needs a new version, then `python -m tests.golden.make`"
    )
    assert (GOLDEN / f"{name}.expected.json").read_bytes() == make.expected_json(description)


def test_no_golden_file_is_without_its_script() -> None:
    made = {name for value in make.golden() for name in (value, f"{value}.expected.json")}
    assert {path.name for path in GOLDEN.glob("*.*") if path.suffix != ".py"} == made


def test_records() -> None:
    assert records_of(expected("record.bin")["records"]).tobytes() == golden("record.bin")


@pytest.mark.parametrize("name", ["sequence.bin", "sequence-raised-floor.bin", "sequence-forgotten.bin"])
def test_sequences(name: str) -> None:
    want = expected(name)
    records = records_of(want["records"])
    got = decode_sequence(golden(name))
    assert got.forgotten_before_ms == want["forgotten_before_ms"]
    np.testing.assert_array_equal(got.records, records)
    assert encode_sequence(Sequence(want["forgotten_before_ms"], records)) == golden(name)


def test_batch() -> None:
    want = expected("batch.bin")["users"]
    got = decode_batch(golden("batch.bin"))
    assert [user.decode() for user in got.users] == [user["user"] for user in want]
    assert got.arrived_ms.tolist() == [user["arrived_ms"] for user in want]
    assert got.forgotten_before_ms.tolist() == [user["forgotten_before_ms"] for user in want]
    assert got.counts.tolist() == [len(user["records"]) for user in want]
    records = records_of([record for user in want for record in user["records"]])
    np.testing.assert_array_equal(got.records, records)
    made = Batch(
        [user["user"].encode() for user in want],
        np.array([user["arrived_ms"] for user in want]),
        np.array([user["forgotten_before_ms"] for user in want]),
        np.array([len(user["records"]) for user in want], np.uint32),
        records,
    )
    assert encode_batch(made) == golden("batch.bin")


def test_manifest() -> None:
    want = expected("manifest.json")
    manifest = decode_manifest(golden("manifest.json"), "manifest.json")
    assert manifest.model_id == want["model_id"] == make.MODEL_ID
    assert (manifest.shape.d_model, manifest.shape.layers) == (want["d_model"], want["layers"])
    assert encode_manifest(manifest) == golden("manifest.json")


@pytest.mark.parametrize("name", ["state.bin", "state-full-step.bin", "state-slack.bin"])
def test_states(name: str) -> None:
    want = expected(name)
    state = decode_state(golden(name), LAYOUT)
    assert state is not None
    assert_header(state.header, want)
    np.testing.assert_array_equal(state.events, records_of([slot["event"] for slot in want["slots"]]))
    kv_shape = (len(want["slots"]), *LAYOUT.slot["kv"].shape)
    np.testing.assert_array_equal(state.slots["kv"], np.reshape([slot["kv"] for slot in want["slots"]], kv_shape))
    scales = decode_scales(state.slots["scale_codes"])
    np.testing.assert_array_equal(scales, np.reshape([slot["scales"] for slot in want["slots"]], scales.shape))
    if name != "state-slack.bin":  # what lies behind `length` is anybody's; our encoder writes zeros there
        assert encode_state(header_of(want), state.slots, LAYOUT) == golden(name)


def test_embedding_alone() -> None:
    value = golden("state.bin")[: LAYOUT.header_bytes]
    np.testing.assert_array_equal(decode_header(value, LAYOUT).embedding, expected("state.bin")["embedding"])


def test_deleted_marker() -> None:
    want = expected("state-deleted.bin")
    assert decode_state(golden("state-deleted.bin"), LAYOUT) is None
    assert_header(decode_header(golden("state-deleted.bin"), LAYOUT), want)
    assert encode_header(header_of(want), LAYOUT) == golden("state-deleted.bin")


def assert_header(header: Header, want: dict) -> None:
    fields = want["header"]
    for name in ("kind", "model_id", "length", "capacity", "newest_event_ms", "arrived_ms", "encoded_ms", "slots_crc"):
        assert getattr(header, name) == fields[name], name
    assert header.revision.hex() == fields["revision"]
    assert header.fence == Fence(bytes.fromhex(fields["topic_id"]), fields["partition"], fields["offset"])
    np.testing.assert_array_equal(header.embedding, np.array(want["embedding"], np.float16))
    assert (LAYOUT.slot_bytes, LAYOUT.shape.head_dim) == (fields["slot_bytes"], fields["head_dim"])


def header_of(want: dict) -> Header:
    fields = want["header"]
    return Header(
        Kind(fields["kind"]),
        fields["model_id"],
        bytes.fromhex(fields["revision"]),
        Fence(bytes.fromhex(fields["topic_id"]), fields["partition"], fields["offset"]),
        fields["length"],
        fields["capacity"],
        fields["newest_event_ms"],
        fields["arrived_ms"],
        fields["encoded_ms"],
        fields["slots_crc"],
        np.array(want["embedding"], np.float16),
    )
