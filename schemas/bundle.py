"""The bundle: one model, immutable, as a directory whose name is its content.

    manifest.json           this module
    encode.onnx append.onnx cross.onnx
    items.npy               (8, rows, d / 8) f16   hashed sub-tables of item embeddings; in int4 (8, rows) of `item_table_layout`
    actions.npy             (actions, d) f16       row 0 stands for every unknown code
    surfaces.npy            (surfaces, d) f16      likewise
    gaps.npy                (28, d) f16            by the time since the event before (encoder.features.gap_buckets)
    candidate.npy           (d,) f16               stands in for the action of a candidate
    catalogue_ids.npy       (n,) i64               the items seen in training
    catalogue_vectors.npy   (n, d) f16             psi(item), unit length: its dot product with a user embedding ranks items
    catalogue_counts.npy    (n,) i64               how often each was engaged with in training: the popularity fallback

The model id is the first 16 hexadecimal characters of the SHA-256 of the manifest without the id; the manifest holds the
SHA-256 of every file. So a bundle that was changed by a byte is a different model, or refused.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np

from schemas.errors import BundleError, ConfigError
from schemas.vocabulary import Vocabulary

FORMAT: Literal["slipstream-bundle"] = "slipstream-bundle"
VERSION = 3
MANIFEST = "manifest.json"
GRAPHS = ("encode", "append", "cross")
ARRAYS = ("items", "actions", "surfaces", "gaps", "candidate", "catalogue_ids", "catalogue_vectors", "catalogue_counts")
FILES = (*(f"{graph}.onnx" for graph in GRAPHS), *(f"{array}.npy" for array in ARRAYS))
MODEL_ID_CHARS = 16
SUB_TABLES = 8
#: Rows of the table of time gaps.
GAP_BUCKETS = 28
#: The codes of the items' table (encoder.tables). All else is fp16.
FP16, INT4 = TABLE_CODES = ("fp16", "int4")

_T = TypeVar("_T")
Positive = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]


class ModelShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sizes of a PinFM. `context` events at most are in a state; the table of positions has one row more, for candidates."""

    layers: Positive
    d_model: Positive
    heads: Positive
    kv_heads: Positive
    context: Positive = 256
    #: Events that remain when a full window is anchored anew.
    keep: Positive = 192
    #: Rows of each of the eight item sub-tables.
    rows: Annotated[int, msgspec.Meta(ge=1, le=1 << 33)] = 16_384
    dtype: Literal["int8"] = "int8"

    def __post_init__(self) -> None:
        if self.d_model % self.heads or self.d_model % SUB_TABLES:
            raise BundleError(f"d_model {self.d_model} must be a multiple of heads {self.heads} and of {SUB_TABLES}")
        if self.heads % self.kv_heads:
            raise BundleError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        if not self.keep < self.context:
            raise BundleError(f"keep {self.keep} must be less than context {self.context}")

    @property
    def head_dim(self) -> int:
        return self.d_model // self.heads

    @property
    def kv_bytes(self) -> int:
        """Bytes of one slot's int8 keys and values."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    @property
    def scale_bytes(self) -> int:
        """Bytes of one slot's scales."""
        return 2 * self.layers * self.kv_heads


PRESETS: dict[str, ModelShape] = {
    "nano": ModelShape(layers=2, d_model=64, heads=2, kv_heads=1),
    "small": ModelShape(layers=4, d_model=128, heads=4, kv_heads=1),
    "medium": ModelShape(layers=8, d_model=256, heads=8, kv_heads=1),
    "paper": ModelShape(layers=12, d_model=768, heads=12, kv_heads=12),
}


def item_table_layout(code: str, rows: int, width: int) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """dtype and shape of items.npy.

    int4: a row is `bias + scale * code`, number by number; the codes are two to a byte, the first in the low four bits. In a row
    of odd width the last four bits are 0. A row's parts lie together: one place in memory, or on disk, is read.

    Args:
        width: d / 8.
    """
    if code == INT4:
        row = [("scale", "<f2"), ("bias", "<f2"), ("codes", "u1", ((width + 1) // 2,))]
        return np.dtype(row), (SUB_TABLES, rows)
    return np.dtype("<f2"), (SUB_TABLES, rows, width)


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    # An unknown field would change nothing but the id's meaning: a field more is a new version.
    format: Literal["slipstream-bundle"] = FORMAT
    version: int = VERSION
    model_id: str
    shape: ModelShape
    #: The code of the items' table, of TABLE_CODES.
    tables: str
    vocabulary: Vocabulary
    #: The 8 seeds of the item hash.
    item_seeds: tuple[int, ...]
    files: dict[str, FileEntry]
    #: What it was trained on and how: free form, for people and model cards.
    training: dict[str, Any] = {}
    #: What it reached: free form.
    metrics: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if self.tables not in TABLE_CODES:
            raise BundleError(
                f"its tables are in the code {self.tables!r}, this build reads {' and '.join(TABLE_CODES)}: export the model "
                "again, or update Slipstream"
            )

    def computed_id(self) -> str:
        content = msgspec.structs.asdict(self)
        del content["model_id"]
        return sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()[:MODEL_ID_CHARS]


class _Head(msgspec.Struct):
    """The fields that every version has."""

    format: Literal["slipstream-bundle"]
    version: int


def _decoded(text: bytes, kind: type[_T], where: str) -> _T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BundleError, ConfigError) as error:
        raise BundleError(f"{where}: not the manifest of a bundle: {error}") from None


def encode_manifest(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=2)


def decode_manifest(text: bytes, where: str) -> Manifest:
    """Decode and verify a manifest: its form, its version and its id, not the files' hashes.

    Raises:
        BundleError: with `where` in its message.
    """
    # The version first: another version's fields need not decode as ours.
    version = _decoded(text, _Head, where).version
    if version != VERSION:
        raise BundleError(f"{where}: bundle version {version}, this build reads {VERSION}: export the model again")
    manifest = _decoded(text, Manifest, where)
    if set(manifest.files) != set(FILES) or len(manifest.item_seeds) != SUB_TABLES:
        raise BundleError(
            f"{where}: a bundle has the files {sorted(FILES)} and {SUB_TABLES} seeds; export the model again"
        )
    if manifest.model_id != manifest.computed_id():
        raise BundleError(
            f"{where}: the content gives model id {manifest.computed_id()}, not {manifest.model_id}: it was changed by hand; "
            "export the model again"
        )
    return manifest
