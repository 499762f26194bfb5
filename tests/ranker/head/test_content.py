"""Content embeddings: files good and bad, and the stand-in that is learned from who engaged with what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ranker.head.content import co_engagement, load_content
from schemas.errors import ConfigError


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path / "content.npz", **arrays)
    return path / "content.npz"


def test_rows_are_of_the_asked_items_and_zero_for_others(tmp_path: Path) -> None:
    file = saved(tmp_path, ids=np.array([30, 10, 20]), vectors=np.array([[3.0, 3], [1, 1], [2, 2]]))
    got = load_content(file, np.array([10, 11, 30, 99]))
    assert got.dtype == np.float32
    assert got.tolist() == [[1, 1], [0, 0], [3, 3], [0, 0]]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"ids": [1]}, "vectors"),
        ({"ids": [1.5], "vectors": [[1.0]]}, "float64"),
        ({"ids": [1, 2], "vectors": [[1.0]]}, r"\(2,\)"),
        ({"ids": [1], "vectors": [[1]]}, "int64"),
        ({"ids": [1, 1], "vectors": [[1.0], [2.0]]}, "1 comes twice"),
        ({"ids": [1], "vectors": [[float("nan")]]}, "finite"),
        ({"ids": [5], "vectors": [[1.0]]}, "none of its 1 ids"),
        ({"ids": np.array([{}]), "vectors": [[1.0]]}, "npz"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        load_content(saved(tmp_path, **arrays), np.array([1, 2]))
    assert "content.npz" in str(raised.value)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"no numpy")
    whole = saved(tmp_path, ids=np.array([1]), vectors=np.ones((1, 9)))
    (tmp_path / "half.npz").write_bytes(whole.read_bytes()[:300])
    np.save(tmp_path / "array.npy", np.ones((2, 2)))
    for file in (tmp_path / name for name in ("x.npz", "half.npz", "array.npy", "nowhere.npz")):
        with pytest.raises(ConfigError, match=file.name):
            load_content(file, np.array([1]))


def test_items_of_the_same_users_are_alike() -> None:
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(60), 20)
    items = np.where(users % 2, rng.integers(0, 20, 1200), rng.integers(20, 40, 1200))
    vectors = co_engagement(users, items, 45, 8, seed=1)
    assert vectors.shape == (45, 8)
    assert not vectors[40:].any(), "nobody knows these"
    unit = vectors[:40] / np.linalg.norm(vectors[:40], axis=1, keepdims=True)
    alike = unit @ unit.T
    assert alike[:20, :20].mean() > alike[:20, 20:].mean() + 0.1
    np.testing.assert_array_equal(vectors, co_engagement(users, items, 45, 8, seed=1))
    assert co_engagement(users[:2], items[:2], 45, 8, seed=1).shape[1] <= 8
