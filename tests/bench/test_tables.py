from __future__ import annotations

import numpy as np
import pytest

from bench import tables
from bench.tables import TablesBench, relative_error, run
from encoder.tables import encode_table
from schemas.bundle import TABLE_CODES, item_table_layout
from schemas.errors import ConfigError


def test_a_small_run_has_all_of_its_figures() -> None:
    said: list[str] = []
    result = run(TablesBench(rows=(64, 9000), d_model=32, tokens=10, seconds=0.01), said.append)
    figures = result.as_json()["figures"]
    assert (
        figures["int4_bytes_over_fp16"] == 0.75
    )  # pieces of 4: as many bytes of scale and bias as fp16 has numbers in two
    for rows in (64, 9000):
        assert figures[f"fp16_bytes_{rows}_rows"] == 2 * rows * 32
        assert figures[f"int4_bytes_{rows}_rows"] == 8 * rows * 6
        for code in TABLE_CODES:
            for place in ("memory", "mapped"):
                assert figures[f"{code}_{place}_us_per_10_tokens_{rows}_rows"] > 0
    assert len(said) == len(result.details["looks"]) == 8


def test_the_error_is_what_a_plain_computation_gives() -> None:
    values = np.random.default_rng(0).standard_normal((8, 8192, 16), np.float32)
    low, step = values.min(-1, keepdims=True), np.ptp(values, axis=-1, keepdims=True) / 15
    off = low + step * np.rint((values - low) / step) - values
    assert relative_error("int4", 16) == pytest.approx(np.linalg.norm(off) / np.linalg.norm(values), rel=0.01)
    assert relative_error("fp16", 16) < 3e-4


@pytest.mark.parametrize("code", TABLE_CODES)
def test_a_written_table_repeats_the_block(tmp_path, code: str) -> None:
    tables._write(tmp_path / "items.npy", code, 20_000, TablesBench(d_model=16))
    written = np.load(tmp_path / "items.npy")
    block = encode_table(tables._random(2), code)
    assert (written.dtype, written.shape) == item_table_layout(code, 20_000, 2)
    assert (written[:, 8192:16_384] == block).all()
    assert (written[:, 16_384:] == block[:, : 20_000 - 16_384]).all()


def test_a_table_that_does_not_fit_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_SHARE", 0)
    said: list[str] = []
    result = run(TablesBench(rows=(64,), d_model=8), said.append)
    assert "64 rows are left out" in said[0]
    assert result.details["looks"] == []
    assert "fp16_bytes_64_rows" in result.figures


@pytest.mark.parametrize("wrong", [{"rows": ()}, {"rows": (0,)}, {"d_model": 12}, {"d_model": 0}])
def test_what_cannot_be_run_is_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        TablesBench(**wrong)
