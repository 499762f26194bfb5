"""Manifests: any damage is refused; shapes that no model can have are refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from schemas.bundle import PRESETS, Manifest, ModelShape, decode_manifest, encode_manifest
from schemas.errors import BundleError
from tests.schemas.damage import assert_refused, flips, golden

WHERE = "models/nano/manifest.json"


def decode(text: bytes) -> Manifest:
    return decode_manifest(text, WHERE)


def changed(**changes: Any) -> bytes:
    return json.dumps({**json.loads(golden("manifest.json")), **changes}).encode()


def resealed(**changes: Any) -> bytes:
    """Changed, with the model id that the change gives."""
    manifest = msgspec.structs.replace(decode(golden("manifest.json")), **changes)
    return encode_manifest(msgspec.structs.replace(manifest, model_id=manifest.computed_id()))


def test_every_truncation_is_refused() -> None:
    text = golden("manifest.json")
    for length in range(len(text)):
        assert_refused(decode, text[:length], BundleError, f"{length} of {len(text)} bytes", WHERE)


def test_every_flipped_bit_is_refused() -> None:
    for byte, bit, damaged in flips(golden("manifest.json")):
        assert_refused(decode, damaged, BundleError, f"byte {byte}, bit {bit}", WHERE)


@pytest.mark.parametrize(
    "text",
    [b"", b"null", b"[]", b"{}", b"\x00", b"\xff", b'"slipstream-bundle"', b"[" * 100_000, b'{"format": "onnx"}'],
    ids=repr,
)
def test_what_is_no_manifest_is_refused(text: bytes) -> None:
    assert_refused(decode, text, BundleError, "no manifest", WHERE)


def test_another_version_is_named_whatever_its_fields_are() -> None:
    with pytest.raises(BundleError, match="bundle version 4, this build reads 3: export the model again"):
        decode(b'{"format": "slipstream-bundle", "version": 4, "towers": 7}')


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_id": "0" * 16}, "was changed by hand"),
        ({"metrics": {"hit_rate_at_10": 0.9}}, "was changed by hand"),
        ({"note": "hello"}, "unknown field `note`"),
        ({"item_seeds": [1, 2, 3]}, "8 seeds"),
        ({"files": {}}, "a bundle has the files"),
        (
            {"tables": "int3"},
            "its tables are in the code 'int3', this build reads fp16 and int4: export the model again",
        ),
        ({"vocabulary": {"actions": ["save"], "surfaces": ["other"]}}, "must begin with 'other'"),
        ({"shape": {**json.loads(golden("manifest.json"))["shape"], "heads": 3}}, "must be a multiple of heads 3"),
        ({"shape": {**json.loads(golden("manifest.json"))["shape"], "layers": 0}}, "shape.layers"),
        ({"shape": {**json.loads(golden("manifest.json"))["shape"], "dtype": "int4"}}, "shape.dtype"),
    ],
)
def test_a_change_by_hand_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BundleError) as caught:
        decode(changed(**changes))
    assert str(caught.value).startswith(f"{WHERE}: ")
    assert says in str(caught.value)


def test_layout_of_the_json_does_not_matter() -> None:
    assert decode(changed()) == decode(golden("manifest.json"))


def test_the_id_names_all_of_the_content() -> None:
    ids = {decode(golden("manifest.json")).model_id}
    for changes in (
        {"metrics": {}},
        {"training": {"log": "another"}},
        {"item_seeds": (1, 2, 3, 4, 5, 6, 7, 8)},
        {"tables": "int4"},
        {"shape": msgspec.structs.replace(PRESETS["nano"], keep=128)},
    ):
        ids.add(decode(resealed(**changes)).model_id)
    assert len(ids) == 6
    assert all(len(bytes.fromhex(model_id)) == 8 for model_id in ids)


def test_order_within_free_form_fields_does_not_change_the_id() -> None:
    assert resealed(training={"a": 1, "b": 2}) == resealed(training={"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"heads": 3}, "d_model 64 must be a multiple of heads 3"),
        ({"d_model": 60, "heads": 2}, "and of 8"),
        ({"kv_heads": 3, "heads": 4}, "heads 4 must be a multiple of kv_heads 3"),
        ({"keep": 256}, "keep 256 must be less than context 256"),
    ],
)
def test_a_shape_that_no_model_has_is_refused(changes: dict[str, int], says: str) -> None:
    with pytest.raises(BundleError, match=says):
        ModelShape(**{"layers": 2, "d_model": 64, "heads": 2, "kv_heads": 1, **changes})


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_shapes(name: str) -> None:
    shape = PRESETS[name]
    assert shape.head_dim * shape.heads == shape.d_model
    assert (shape.context, shape.keep) == (256, 192)
