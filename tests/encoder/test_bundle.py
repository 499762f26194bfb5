from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from encoder.bundle import load_bundle, write_bundle
from encoder.export import Catalogue, export_weights
from encoder.features import item_seeds
from encoder.weights import random_weights
from schemas.bundle import ARRAYS, FILES, GRAPHS, MANIFEST, ModelShape
from schemas.errors import BundleError, ContractError
from schemas.vocabulary import Vocabulary
from tests.bundles import random_bundle

SHAPE = ModelShape(layers=1, d_model=16, heads=2, kv_heads=1, context=16, keep=12, rows=32)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    random_bundle(tmp_path / "bundle", SHAPE, items=20)
    return tmp_path / "bundle"


def test_a_bundle_is_loaded_as_it_was_written(tmp_path: Path) -> None:
    vocabulary = Vocabulary(actions=("other", "save"), surfaces=("other",))
    weights = random_weights(SHAPE, vocabulary, seed=5)
    catalogue = Catalogue(np.array([-3, 7, 1 << 60]), np.array([4, 0, 9]))
    manifest = export_weights(
        weights,
        tmp_path / "new" / "bundle",
        shape=SHAPE,
        vocabulary=vocabulary,
        item_seeds=item_seeds(5),
        catalogue=catalogue,
        training={"log": "test"},
        metrics={"hr10": 0.5},
    )
    bundle = load_bundle(tmp_path / "new" / "bundle")
    assert bundle.manifest == manifest
    assert (bundle.shape, bundle.manifest.vocabulary) == (SHAPE, vocabulary)
    assert (bundle.manifest.training, bundle.manifest.metrics) == ({"log": "test"}, {"hr10": 0.5})
    assert bundle.layout.model_id == bundle.model_id == manifest.model_id
    np.testing.assert_array_equal(bundle.catalogue_ids, catalogue.ids)
    np.testing.assert_array_equal(bundle.catalogue_counts, catalogue.counts)
    lengths = np.linalg.norm(bundle.catalogue_vectors.astype(np.float32), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=2e-3)
    for graph in GRAPHS:
        assert bundle.graph(graph).is_file()


def test_the_model_id_is_the_content(tmp_path: Path) -> None:
    first, again = random_bundle(tmp_path / "a", SHAPE), random_bundle(tmp_path / "b", SHAPE)
    assert first.manifest == again.manifest
    assert random_bundle(tmp_path / "c", SHAPE, seed=1).model_id != first.model_id
    for name in (*FILES, MANIFEST):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_refused(directory: Path, name: str) -> None:
    path = directory / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name}.*SHA-256"):
        load_bundle(directory)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", FILES)
def test_a_truncated_or_missing_file_is_refused(directory: Path, name: str, verify: bool) -> None:
    path = directory / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=f"{name}.*bytes"):
        load_bundle(directory, verify)
    path.unlink()
    with pytest.raises(BundleError, match=f"{name}.*cannot be read"):
        load_bundle(directory, verify)


def test_a_changed_manifest_is_refused(directory: Path) -> None:
    path = directory / MANIFEST
    path.write_bytes(path.read_bytes().replace(b'"keep": 12', b'"keep": 11'))
    with pytest.raises(BundleError, match="changed by hand"):
        load_bundle(directory)
    path.unlink()
    with pytest.raises(BundleError, match="slipstream export"):
        load_bundle(directory)


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_another_shape_are_refused(directory: Path, name: str) -> None:
    """The hashes match, but not the sizes: who made this bundle made it wrong."""
    bundle = load_bundle(directory)
    arrays = {array: np.load(directory / f"{array}.npy") for array in ARRAYS}
    arrays[name] = arrays[name][:-1]
    with pytest.raises(BundleError, match=r"\.npy"):
        rewrite(directory.with_name("wrong"), bundle, arrays)
    arrays = {array: np.load(directory / f"{array}.npy") for array in ARRAYS}
    arrays[name] = arrays[name].astype(np.float32)
    with pytest.raises(BundleError, match=f"{name}.npy is float32"):
        rewrite(directory.with_name("wrong"), bundle, arrays)


def test_arrays_are_never_unpickled(directory: Path) -> None:
    path = directory / "items.npy"
    np.save(path, np.array([print], object), allow_pickle=True)
    manifest = load_manifest(directory)
    forged = {**manifest["files"], "items.npy": {**manifest["files"]["items.npy"], "bytes": path.stat().st_size}}
    write_manifest(directory, {**manifest, "files": forged})
    with pytest.raises(BundleError, match=r"items\.npy.*not a NumPy array"):
        load_bundle(directory, verify=False)


def test_a_catalogue_out_of_order_is_refused(directory: Path) -> None:
    arrays = {array: np.load(directory / f"{array}.npy") for array in ARRAYS}
    arrays["catalogue_ids"] = arrays["catalogue_ids"][::-1]
    with pytest.raises(BundleError, match="not ascending"):
        rewrite(directory.with_name("wrong"), load_bundle(directory), arrays)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_not_exported(tmp_path: Path, value: float) -> None:
    weights = random_weights(SHAPE, Vocabulary())
    weights["positions"][3, 2] = value
    with pytest.raises(ContractError, match="positions"):
        export_test_weights(weights, tmp_path / "bundle")
    weights = random_weights(SHAPE, Vocabulary())
    weights["items"][1, 2, 0] = 1e6  # more than fp16 holds
    with pytest.raises(BundleError, match="items"), np.errstate(over="ignore"):
        export_test_weights(weights, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_model_are_not_exported(tmp_path: Path) -> None:
    weights = random_weights(SHAPE, Vocabulary())
    del weights["norm.bias"]
    with pytest.raises(ContractError, match=r"missing \['norm.bias'\]"):
        export_test_weights(weights, tmp_path / "bundle")
    weights["norm.bias"] = np.zeros(3, np.float32)
    with pytest.raises(ContractError, match=r"norm\.bias has shape"):
        export_test_weights(weights, tmp_path / "bundle")


def test_a_bundle_is_never_overwritten(directory: Path) -> None:
    before = load_bundle(directory)
    random_bundle(directory, SHAPE, items=20)  # the same model
    with pytest.raises(BundleError, match="never overwritten"):
        random_bundle(directory, SHAPE, items=21)
    assert load_bundle(directory).manifest == before.manifest
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]


def rewrite(directory: Path, bundle: object, arrays: dict[str, np.ndarray]) -> None:
    from encoder.bundle import Bundle

    assert isinstance(bundle, Bundle)
    write_bundle(
        directory,
        shape=bundle.shape,
        vocabulary=bundle.manifest.vocabulary,
        item_seeds=bundle.manifest.item_seeds,
        graphs={graph: bundle.graph(graph).read_bytes() for graph in GRAPHS},
        arrays=arrays,
    )


def export_test_weights(weights: dict[str, np.ndarray], directory: Path) -> None:
    export_weights(
        weights,
        directory,
        shape=SHAPE,
        vocabulary=Vocabulary(),
        item_seeds=item_seeds(0),
        catalogue=Catalogue(np.arange(3), np.ones(3, np.int64)),
    )


def load_manifest(directory: Path) -> dict:
    return msgspec.json.decode((directory / MANIFEST).read_bytes())


def write_manifest(directory: Path, content: dict) -> None:
    """With the id that belongs to the content."""
    from schemas.bundle import Manifest

    manifest = msgspec.convert(content, Manifest)
    manifest = msgspec.structs.replace(manifest, model_id=manifest.computed_id())
    (directory / MANIFEST).write_bytes(msgspec.json.encode(manifest, order="deterministic"))
