"""encoder/contract.py: graphs that keep their promises, and the example's graphs with each promise broken."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from encoder.bundle import Bundle, load_bundle, write_bundle
from encoder.contract import broken_promises, require_contract
from schemas.bundle import GAP_BUCKETS, ModelShape
from schemas.errors import BundleError
from schemas.vocabulary import Vocabulary
from tests.documents import ROOT
from tests.encoder.models import small_model


@pytest.fixture
def bag() -> ModuleType:
    """The example's module, a fresh one each time."""
    spec = importlib.util.spec_from_file_location("bag", ROOT / "examples" / "own-encoder" / "bag.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bundle_of(graphs: dict[str, bytes], shape: ModelShape, directory: Path) -> Bundle:
    d, vocabulary = shape.d_model, Vocabulary()
    half = np.float16
    write_bundle(
        directory,
        shape=shape,
        vocabulary=vocabulary,
        item_seeds=tuple(range(8)),
        graphs=graphs,
        arrays={
            "items": np.zeros((8, shape.rows, d // 8), half),
            "actions": np.zeros((len(vocabulary.actions), d), half),
            "surfaces": np.zeros((len(vocabulary.surfaces), d), half),
            "gaps": np.zeros((GAP_BUCKETS, d), half),
            "candidate": np.zeros(d, half),
            "catalogue_ids": np.zeros(0, np.int64),
            "catalogue_vectors": np.zeros((0, d), half),
            "catalogue_counts": np.zeros(0, np.int64),
        },
    )
    return load_bundle(directory)


def test_our_graphs_keep_it(tmp_path: Path) -> None:
    require_contract(small_model(tmp_path / "model").bundle)


def test_the_examples_graphs_keep_it(bag: ModuleType, tmp_path: Path) -> None:
    shape = bag.bag_shape(32, 64, context=24, keep=18)
    require_contract(bundle_of(bag.graphs(shape), shape, tmp_path / "bag"))


def wrong_age(bag: ModuleType) -> None:
    """The embedding of `append` counts ages from the first new token: as if there were no past."""
    bag._PAST = bag._PAST.replace("past_rows = Unsqueeze", "real_rows = Unsqueeze").replace(
        "is_past = Less(past_steps, past_rows)",
        "is_past = Less(past_steps, real_rows)\n past_rows = Sub(real_rows, real_rows)",
    )


def padding_counts(bag: ModuleType) -> None:
    bag._PAST = bag._PAST.replace(
        "is_past = Less(past_steps, past_rows)",
        "far_rows = Max(past_rows, past_count)\n is_past = Less(past_steps, far_rows)",
    )


def off_the_grid(bag: ModuleType) -> None:
    bag.GRID = 0.0


def not_unit(bag: ModuleType) -> None:
    unit = bag._unit
    bag._unit = lambda name, of: unit(name, of).replace("ReduceL2", "ReduceL1")


def slots_of_neighbours(bag: ModuleType) -> None:
    """A scale for the whole of what is encoded at once: a slot then depends on later events."""
    widest = "each = Max(largest, negated)\n widest = ReduceMax<keepdims = 1>(each, column_axis)\n"
    bag._SLOTS = bag._SLOTS.replace("extent = Max(largest, negated)", f"{widest} extent = Max(each, widest)")


def does_not_run(bag: ModuleType) -> None:
    bag._SLOTS = bag._SLOTS.replace("extent = Max(largest, negated)", "extent = ReduceMax(negated)")


@pytest.mark.parametrize(
    ("breaking", "said"),
    [
        (wrong_age, r"append on top of \d+ slots: the embedding is another one"),
        (
            padding_counts,
            r"append on top of \d+ slots: the embedding is another one.*cross: other candidates, other users or padding",
        ),
        (off_the_grid, "scales are not on the grid"),
        (not_unit, "embeddings are not of unit length"),
        (does_not_run, "a graph does not run: .*Reshape"),
        (slots_of_neighbours, r"append on top of \d+ slots: slots are other ones than encoded at once"),
    ],
)
def test_each_broken_promise_is_told(
    bag: ModuleType, tmp_path: Path, breaking: Callable[[ModuleType], None], said: str
) -> None:
    breaking(bag)
    shape = bag.bag_shape(32, 64, context=24, keep=18)
    bundle = bundle_of(bag.graphs(shape), shape, tmp_path / "bag")
    with pytest.raises(BundleError, match=f"(?s){said}"):
        require_contract(bundle)


def test_a_form_that_is_not_the_shapes_is_told(bag: ModuleType, tmp_path: Path) -> None:
    graphs = bag.graphs(bag.bag_shape(32, 64, context=24, keep=18))
    other = ModelShape(layers=2, d_model=32, heads=4, kv_heads=1, context=24, keep=18, rows=64)
    assert list(broken_promises(bundle_of(graphs, other, tmp_path / "bag"))) == [
        "encode: kv is int8 (4, 23, 2, 1, 1, 16), not int8 (4, 23, 2, 2, 1, 8)"
    ]
