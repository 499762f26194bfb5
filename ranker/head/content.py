"""Content embeddings of items: from a file, or learned from who engaged with what.

Letters: m items, k width.
"""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from ranker.head.places import Ints, places_in
from schemas.errors import ConfigError


def load_content(file: Path, item_ids: Ints) -> NDArray[np.float32]:
    """Rows of a file for the given items; zeros for those that it does not have.

    Args:
        file: .npz with `ids` `(n,)` integers, distinct, and `vectors` `(n, k)` floats.
        item_ids: `(m,)`.

    Returns:
        `(m, k)`.

    Raises:
        ConfigError: it cannot be read, or is not that.
    """
    advice = "write it with numpy.savez(file, ids=ids, vectors=vectors)"
    try:
        with np.load(file, allow_pickle=False) as arrays:
            ids, vectors = arrays["ids"], arrays["vectors"]
    except OSError as error:
        raise ConfigError(f"--content {file}: cannot be read ({error.strerror or error}): {advice}") from None
    except (BadZipFile, KeyError, ValueError, TypeError, AttributeError, EOFError) as error:
        raise ConfigError(f"--content {file}: no .npz with `ids` and `vectors` ({error}): {advice}") from None
    if ids.dtype.kind not in "iu" or vectors.dtype.kind != "f" or vectors.ndim != 2 or ids.shape != vectors.shape[:1]:
        raise ConfigError(
            f"--content {file}: ids are {ids.dtype} {ids.shape} and vectors {vectors.dtype} {vectors.shape}, expected "
            f"integers (n,) and floats (n, k): {advice}"
        )
    if not vectors.size or not np.isfinite(vectors).all():
        raise ConfigError(
            f"--content {file}: vectors are empty, or hold numbers that are not finite: leave such items out"
        )
    order = np.argsort(ids, kind="stable")
    ids = ids[order].astype(np.int64)
    if (ids[1:] == ids[:-1]).any():
        raise ConfigError(f"--content {file}: id {ids[1:][ids[1:] == ids[:-1]][0]} comes twice: give each item one row")
    place, found = places_in(ids, item_ids)
    if not found.any():
        raise ConfigError(f"--content {file}: none of its {len(ids):,} ids is an item of the log")
    rows: NDArray[np.float32] = np.where(found[:, None], vectors[order][place], 0).astype(np.float32)
    return rows


def co_engagement(users: Ints, items: Ints, count: int, width: int, seed: int) -> NDArray[np.float32]:
    """Embeddings of items from who engaged with them: a truncated SVD of the positive pointwise mutual information of user and
    item. A stand-in for what knows an item from elsewhere, such as a graph embedding.

    Args:
        users, items: `(n,)` of events.
        count: m.

    Returns:
        `(m, k)`, entries of about 1; zeros for items without an event. k is `width`, or fewer if items or users are fewer.
    """
    pairs = np.unique(users * count + items)
    user, item = np.divmod(pairs, count)
    of_user, of_item = np.bincount(user), np.bincount(item, minlength=count)
    information = np.log(len(pairs) / (of_user[user] * of_item[item].astype(float)))
    rows = torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([item, user])),
        torch.from_numpy(np.maximum(information, 0).astype(np.float32)),
        (count, len(of_user)),
        check_invariants=True,
    ).coalesce()
    width = min(width, *rows.shape)
    # torch draws its start from the one generator that it has.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        left, values, _ = torch.svd_lowrank(rows, q=min(2 * width, *rows.shape), niter=4)
    vectors = (left[:, :width] * values[:width].sqrt()).numpy()
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    known = (of_item > 0)[:, None] & (norms > 0)
    result: NDArray[np.float32] = np.where(known, vectors / np.maximum(norms, 1e-9) * np.sqrt(width), 0).astype(
        np.float32
    )
    return result
