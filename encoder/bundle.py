"""Bundles on disk: reading one that cannot be trusted, writing one that can. The format is schemas.bundle's."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from encoder.features import Features
from schemas.bundle import (
    ARRAYS,
    FILES,
    FP16,
    GAP_BUCKETS,
    GRAPHS,
    MANIFEST,
    SUB_TABLES,
    FileEntry,
    Manifest,
    ModelShape,
    decode_manifest,
    encode_manifest,
    item_table_layout,
)
from schemas.errors import BundleError
from schemas.state import StateLayout
from schemas.vocabulary import Vocabulary


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle. Tables are memory mapped: they are read as they are used, and shared between processes.

    Attributes:
        directory: where it lies; the graphs are loaded from there.
        features: tokens of events and candidates.
        catalogue_ids: `(n,)` i64, items seen in training, ascending.
        catalogue_vectors: `(n, d)` f16, unit length; user embedding . vector ranks items.
        catalogue_counts: `(n,)` i64, events of each item in training.
    """

    directory: Path
    manifest: Manifest
    features: Features
    catalogue_ids: NDArray[np.int64]
    catalogue_vectors: NDArray[np.float16]
    catalogue_counts: NDArray[np.int64]

    @property
    def model_id(self) -> str:
        return self.manifest.model_id

    @property
    def shape(self) -> ModelShape:
        return self.manifest.shape

    @property
    def layout(self) -> StateLayout:
        """How this model's states are laid out."""
        return StateLayout(self.manifest.shape, self.manifest.model_id)

    def graph(self, name: str) -> Path:
        """The file of the graph `encode`, `append` or `cross`."""
        return self.directory / f"{name}.onnx"


def read_manifest(directory: Path | str) -> Manifest:
    """A bundle's manifest alone; its files are not looked at.

    Raises:
        BundleError: there is none, it is of another version, or it was changed.
    """
    path = Path(directory) / MANIFEST
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror}): name the directory of a bundle, as `slipstream export` writes it"
        ) from None
    return decode_manifest(text, str(path))


def load_bundle(directory: Path | str, verify: bool = True) -> Bundle:
    """Load and check a bundle.

    Args:
        verify: compare every file with its hash in the manifest, about a second per GB; sizes and shapes are compared anyway.

    Raises:
        BundleError: there is none, it is of another version, or it is not what its manifest says.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    for name, entry in manifest.files.items():
        _check_file(directory / name, entry, verify)
    arrays = {name: _load_array(directory / f"{name}.npy") for name in ARRAYS}
    _check_arrays(arrays, manifest.shape, manifest.vocabulary, manifest.tables, str(directory))
    features = Features(
        arrays["items"],
        arrays["actions"],
        arrays["surfaces"],
        arrays["gaps"],
        arrays["candidate"],
        manifest.item_seeds,
    )
    return Bundle(
        directory,
        manifest,
        features,
        arrays["catalogue_ids"],
        arrays["catalogue_vectors"],
        arrays["catalogue_counts"],
    )


def write_bundle(
    directory: Path | str,
    *,
    shape: ModelShape,
    vocabulary: Vocabulary,
    item_seeds: tuple[int, ...],
    graphs: Mapping[str, bytes],
    arrays: Mapping[str, NDArray[Any]],
    tables: str = FP16,
    training: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> Manifest:
    """Write a bundle; it appears at `directory` complete or not at all. Writing the same model there again changes nothing.

    Args:
        graphs: serialised ONNX models by name (schemas.bundle.GRAPHS).
        arrays: arrays by name (schemas.bundle.ARRAYS), of their final dtypes.
        tables: the code that the items' table is in, of schemas.bundle.TABLE_CODES.
        training, metrics: JSON-like notes for people.

    Raises:
        BundleError: an array is not as the shape says or not finite, or something else lies at `directory`.
    """
    directory = Path(directory)
    _check_arrays(arrays, shape, vocabulary, tables, str(directory))
    for name, array in arrays.items():
        if not all(np.isfinite(part).all() for part in _parts(array)):
            raise BundleError(f"{directory}: {name} holds numbers that are not finite, or too large for its type")
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = directory.with_name(f".{directory.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        for graph in GRAPHS:
            (partial / f"{graph}.onnx").write_bytes(graphs[graph])
        for name in ARRAYS:
            np.save(partial / f"{name}.npy", np.ascontiguousarray(arrays[name]), allow_pickle=False)
        unnamed = Manifest(
            model_id="",
            shape=shape,
            tables=tables,
            vocabulary=vocabulary,
            item_seeds=item_seeds,
            files={name: _entry(partial / name) for name in FILES},
            training=dict(training or {}),
            metrics=dict(metrics or {}),
        )
        manifest = msgspec.structs.replace(unnamed, model_id=unnamed.computed_id())
        (partial / MANIFEST).write_bytes(encode_manifest(manifest))
        _publish(partial, directory, manifest)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _publish(partial: Path, directory: Path, manifest: Manifest) -> None:
    try:
        partial.rename(directory)  # also over an empty directory
    except OSError:
        there = directory / MANIFEST
        if there.is_file() and there.read_bytes() == encode_manifest(manifest):
            return
        raise BundleError(
            f"{directory}: something else is there, and bundles are never overwritten: name another directory, or delete it"
        ) from None


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        return FileEntry(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def _check_file(path: Path, entry: FileEntry, verify: bool) -> None:
    advice = "the bundle is incomplete or was changed: copy or export it again"
    try:
        if path.stat().st_size != entry.bytes:
            raise BundleError(f"{path}: {path.stat().st_size} bytes, the manifest says {entry.bytes}: {advice}")
        if verify and _entry(path).sha256 != entry.sha256:
            raise BundleError(f"{path}: its SHA-256 is not the one in the manifest: {advice}")
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}): {advice}") from None


def _load_array(path: Path) -> NDArray[Any]:
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BundleError(f"{path}: not a NumPy array ({error}): copy or export the bundle again") from None
    return np.asarray(loaded)


def _parts(array: NDArray[Any]) -> list[NDArray[Any]]:
    """An array's fields, if it has some, or itself."""
    return [array[name] for name in array.dtype.names] if array.dtype.names else [array]


def _check_arrays(
    arrays: Mapping[str, NDArray[Any]], shape: ModelShape, vocabulary: Vocabulary, tables: str, where: str
) -> None:
    d, n = shape.d_model, len(arrays["catalogue_ids"])
    expected: dict[str, tuple[str | np.dtype[Any], tuple[int, ...]]] = {
        "items": item_table_layout(tables, shape.rows, d // SUB_TABLES),
        "actions": ("<f2", (len(vocabulary.actions), d)),
        "surfaces": ("<f2", (len(vocabulary.surfaces), d)),
        "gaps": ("<f2", (GAP_BUCKETS, d)),
        "candidate": ("<f2", (d,)),
        "catalogue_ids": ("<i8", (n,)),
        "catalogue_vectors": ("<f2", (n, d)),
        "catalogue_counts": ("<i8", (n,)),
    }
    for name, (dtype, size) in expected.items():
        array = arrays[name]
        if array.dtype != np.dtype(dtype) or array.shape != size:
            raise BundleError(
                f"{where}: {name}.npy is {array.dtype} {array.shape}, the manifest asks for {np.dtype(dtype)} {size}: "
                "export the model again"
            )
    ids = arrays["catalogue_ids"]
    if n and not (ids[1:] > ids[:-1]).all():
        raise BundleError(f"{where}: catalogue_ids.npy is not ascending: export the model again")
