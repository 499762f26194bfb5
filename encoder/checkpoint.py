"""Checkpoints: what `train` leaves and `export` takes. A directory of two files:

    model.safetensors   weights by name (encoder.weights), and the catalogue: catalogue_ids, catalogue_counts i64 (n,)
    checkpoint.json     shape, vocabulary, hash seeds, notes on training and metrics

No torch, and no pickle: a checkpoint from a stranger can hold wrong numbers, but no code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from encoder.weights import check_weights
from schemas.bundle import ModelShape
from schemas.errors import BundleError, ContractError, PrerequisiteError
from schemas.vocabulary import Vocabulary

WEIGHTS, NOTES = "model.safetensors", "checkpoint.json"
VERSION = 1
_CATALOGUE = ("catalogue_ids", "catalogue_counts")


class CheckpointNotes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of checkpoint.json."""

    format: Literal["slipstream-checkpoint"] = "slipstream-checkpoint"
    version: int = VERSION
    shape: ModelShape
    vocabulary: Vocabulary
    item_seeds: tuple[int, ...]
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}


@dataclass(frozen=True)
class Checkpoint:
    """
    Attributes:
        weights: by name.
        catalogue_ids: `(n,)` i64, items of the training data, ascending.
        catalogue_counts: `(n,)` i64, events of each.
    """

    notes: CheckpointNotes
    weights: dict[str, NDArray[np.float32]]
    catalogue_ids: NDArray[np.int64]
    catalogue_counts: NDArray[np.int64]


def save_checkpoint(directory: Path | str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, over an older one if there is one. The notes come last: with them it is complete."""
    from safetensors.numpy import save_file

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / NOTES).unlink(missing_ok=True)
    ids, counts = _CATALOGUE
    tensors: dict[str, NDArray[Any]] = {
        **checkpoint.weights,
        ids: checkpoint.catalogue_ids,
        counts: checkpoint.catalogue_counts,
    }
    save_file(tensors, directory / WEIGHTS)
    notes = msgspec.json.format(msgspec.json.encode(checkpoint.notes, order="deterministic"), indent=2)
    (directory / NOTES).write_bytes(notes)


def load_checkpoint(directory: Path | str) -> Checkpoint:
    """Read and check a checkpoint.

    Raises:
        BundleError: it is missing, incomplete or damaged.
        PrerequisiteError: safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError:
        raise PrerequisiteError("safetensors is missing: pip install 'slipstream-embeddings[train]'") from None
    directory = Path(directory)
    try:
        notes = msgspec.json.decode((directory / NOTES).read_bytes(), type=CheckpointNotes)
        tensors = load_file(directory / WEIGHTS)
    except OSError as error:
        raise BundleError(
            f"{directory}: no checkpoint ({error.strerror or error}): name the directory that `slipstream train` wrote"
        ) from None
    except (msgspec.DecodeError, SafetensorError) as error:
        raise BundleError(f"{directory}: the checkpoint is damaged ({error}): train again") from None
    if notes.version != VERSION:
        raise BundleError(f"{directory}: checkpoint version {notes.version}, this build reads {VERSION}: train again")
    if not set(_CATALOGUE) <= set(tensors):
        raise BundleError(f"{directory}: the checkpoint has no catalogue: train again")
    ids, counts = (tensors.pop(name) for name in _CATALOGUE)
    try:
        check_weights(tensors, notes.shape, notes.vocabulary, str(directory / WEIGHTS))
    except ContractError as error:
        raise BundleError(str(error)) from None
    return Checkpoint(notes, tensors, ids, counts)
