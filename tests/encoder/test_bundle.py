from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from encoder.bundle import load_bundle, write_bundle
from encoder.export import Catalogue, export_weights, psi
from encoder.features import item_rows, item_seeds
from encoder.tables import rounded_tables
from encoder.weights import random_weights
from schemas.bundle import ARRAYS, FILES, GRAPHS, MANIFEST, TABLE_CODES, ModelShape
from schemas.errors import BundleError, ConfigError, ContractError
from schemas.vocabulary import Vocabulary
from tests.bundles import random_bundle

SHAPE = ModelShape(layers=1, d_model=16, heads=2, kv_heads=1, context=16, keep=12, rows=32)


@pytest.fixture(params=TABLE_CODES)
def tables(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def directory(tmp_path: Path, tables: str) -> Path:
    random_bundle(tmp_path / "bundle", SHAPE, items=20, tables=tables)
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
    arrays[name] = np.zeros(arrays[name].shape, np.float32)
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
def test_numbers_that_are_not_finite_are_not_exported(tmp_path: Path, value: float, tables: str) -> None:
    weights = random_weights(SHAPE, Vocabulary())
    weights["positions"][3, 2] = value
    with pytest.raises(ContractError, match="positions"):
        export_test_weights(weights, tmp_path / "bundle")
    weights = random_weights(SHAPE, Vocabulary())
    weights["items"][1, 2, 0] = 1e6  # more than fp16 holds
    with pytest.raises(BundleError, match="items"), np.errstate(over="ignore"):
        export_test_weights(weights, tmp_path / "bundle", tables)
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
    tables = before.manifest.tables
    random_bundle(directory, SHAPE, items=20, tables=tables)  # the same model
    with pytest.raises(BundleError, match="never overwritten"):
        random_bundle(directory, SHAPE, items=21, tables=tables)
    assert load_bundle(directory).manifest == before.manifest
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]


def rewrite(directory: Path, bundle: object, arrays: dict[str, np.ndarray]) -> None:
    from encoder.bundle import Bundle

    assert isinstance(bundle, Bundle)
    write_bundle(
        directory,
        tables=bundle.manifest.tables,
        shape=bundle.shape,
        vocabulary=bundle.manifest.vocabulary,
        item_seeds=bundle.manifest.item_seeds,
        graphs={graph: bundle.graph(graph).read_bytes() for graph in GRAPHS},
        arrays=arrays,
    )


def test_int4_tables_are_another_model_of_the_same_weights(tmp_path: Path) -> None:
    half, int4 = (random_bundle(tmp_path / code, SHAPE, items=20, tables=code) for code in ("fp16", "int4"))
    assert (half.manifest.tables, int4.manifest.tables) == ("fp16", "int4")
    assert half.model_id != int4.model_id
    for file in FILES:
        same = (tmp_path / "fp16" / file).read_bytes() == (tmp_path / "int4" / file).read_bytes()
        assert same == (file not in ("items.npy", "catalogue_vectors.npy")), file
    weights = rounded_tables(random_weights(SHAPE, Vocabulary()), "int4")
    ids = int4.catalogue_ids
    rows = item_rows(ids, int4.manifest.item_seeds, SHAPE.rows)
    served = weights["items"][np.arange(8)[:, None], rows].swapaxes(0, 1).reshape(len(ids), SHAPE.d_model)
    np.testing.assert_array_equal(int4.features.items(ids), served)
    np.testing.assert_array_equal(int4.catalogue_vectors, psi(weights, served).astype(np.float16))
    np.testing.assert_array_equal(int4.features.candidates(ids), served + weights["candidate"])


def test_a_loaded_table_stays_on_disk(directory: Path) -> None:
    base = load_bundle(directory).features._items
    while not isinstance(base, np.memmap):
        assert isinstance(base, np.ndarray), "the table was copied"
        base = base.base


def test_tables_of_another_code_than_the_manifest_says_are_refused(directory: Path, tables: str) -> None:
    manifest = load_manifest(directory)
    write_manifest(directory, {**manifest, "tables": "int4" if tables == "fp16" else "fp16"})
    with pytest.raises(BundleError, match=r"items\.npy is .*, the manifest asks for"):
        load_bundle(directory)


def test_a_code_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'int3' is no code of tables: choose one of fp16, int4"):
        random_bundle(tmp_path / "bundle", SHAPE, tables="int3")
    assert list(tmp_path.iterdir()) == []


def export_test_weights(weights: dict[str, np.ndarray], directory: Path, tables: str = "fp16") -> None:
    export_weights(
        weights,
        directory,
        shape=SHAPE,
        vocabulary=Vocabulary(),
        item_seeds=item_seeds(0),
        catalogue=Catalogue(np.arange(3), np.ones(3, np.int64)),
        tables=tables,
    )


def load_manifest(directory: Path) -> dict:
    return msgspec.json.decode((directory / MANIFEST).read_bytes())


def write_manifest(directory: Path, content: dict) -> None:
    """With the id that belongs to the content."""
    from schemas.bundle import Manifest

    manifest = msgspec.convert(content, Manifest)
    manifest = msgspec.structs.replace(manifest, model_id=manifest.computed_id())
    (directory / MANIFEST).write_bytes(msgspec.json.encode(manifest, order="deterministic"))
