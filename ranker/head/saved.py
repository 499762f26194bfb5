"""A trained ranker on disk, as it is served: a directory that belongs to one bundle. No torch, no pickle.

ranker.json          this module: which model's states it reads, its tasks, its features, how it was trained
ranker.onnx          ranker.head.graph
catalogue.npz        what the ranker knows of items: ids, ascending, popularity and first_seen_ms `(n,)` i64
ranker.safetensors   weights of head and fine-tuning, for training on; nothing that serves reads them
checkpoint/          of the PinFM that was trained with it (encoder.checkpoint): its bundle is what encoders run
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple
from zipfile import BadZipFile

import msgspec
import numpy as np
from numpy.typing import NDArray

from ranker.head.context import NAMES
from ranker.head.places import places_in
from schemas.errors import BundleError

NOTES, GRAPH, CATALOGUE, WEIGHTS, CHECKPOINT = (
    "ranker.json",
    "ranker.onnx",
    "catalogue.npz",
    "ranker.safetensors",
    "checkpoint",
)
VERSION: Literal[1] = 1
_COLUMNS = ("ids", "popularity", "first_seen_ms")


class RankerNotes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of ranker.json.

    Attributes:
        model_id: of the bundle whose states it reads.
        tasks: J names of actions, in the order of the probabilities.
        features: context features, in the order of the graph's input.
        content_width: k; 0: it takes no content.
        graph_sha256: of ranker.onnx.
    """

    format: Literal["slipstream-ranker"] = "slipstream-ranker"
    version: int = VERSION
    model_id: str
    tasks: tuple[str, ...]
    features: tuple[str, ...] = NAMES
    content_width: int = 0
    graph_sha256: str
    config: dict[str, Any] = {}
    metrics: dict[str, float] = {}


class Catalogue(NamedTuple):
    """Columns `(n,)` i64, ids ascending."""

    ids: NDArray[np.int64]
    popularity: NDArray[np.int64]
    first_seen_ms: NDArray[np.int64]

    def look_up(self, items: NDArray[np.int64], now_ms: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Popularity and age in ms of items, `(C,)` each; 0 for one that it does not know."""
        if not len(self.ids):
            return np.zeros_like(items), np.zeros_like(items)
        place, known = places_in(self.ids, items)
        age = np.maximum(now_ms - self.first_seen_ms[place], 0)
        return np.where(known, self.popularity[place], 0), np.where(known, age, 0)


def write_ranker(directory: Path, notes: RankerNotes, graph: bytes, catalogue: Catalogue) -> None:
    """Write what serves, over an older one if there is one. The notes come last: with them it is complete."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / NOTES).unlink(missing_ok=True)
    (directory / GRAPH).write_bytes(graph)
    np.savez(directory / CATALOGUE, **catalogue._asdict())
    text = msgspec.json.encode(notes, order="deterministic")
    (directory / NOTES).write_bytes(msgspec.json.format(text, indent=2))


def read_ranker(directory: Path) -> tuple[RankerNotes, Path, Catalogue]:
    """Read and check: notes, the graph's file, the catalogue.

    Raises:
        BundleError: it is missing, incomplete, changed, or of another version.
    """
    advice = "train it again with `slipstream train-ranker`"
    try:
        notes = msgspec.json.decode((directory / NOTES).read_bytes(), type=RankerNotes)
        graph = (directory / GRAPH).read_bytes()
        with np.load(directory / CATALOGUE, allow_pickle=False) as arrays:
            catalogue = Catalogue(*(arrays[name] for name in _COLUMNS))
    except OSError as error:
        raise BundleError(
            f"{error.filename or directory}: no ranker ({error.strerror or error}): name the directory that "
            "`slipstream train-ranker` wrote"
        ) from None
    except (msgspec.DecodeError, BadZipFile, KeyError, ValueError, EOFError) as error:
        raise BundleError(f"{directory}: the ranker is damaged ({error}): {advice}") from None
    if notes.version != VERSION or notes.features != NAMES:
        raise BundleError(
            f"{directory}: version {notes.version} with the features {', '.join(notes.features)}; this build reads version "
            f"{VERSION} with {', '.join(NAMES)}: {advice}"
        )
    if sha256(graph).hexdigest() != notes.graph_sha256:
        raise BundleError(f"{directory / GRAPH}: it is not the graph of {NOTES}: copy the directory again, or {advice}")
    return notes, directory / GRAPH, catalogue
