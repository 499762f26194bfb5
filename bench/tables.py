"""Tables of item embeddings in each code: bytes, error, and what a look-up takes, in memory and mapped from disk.

Random weights: a trained table's error is the same to a few percent, and time does not depend on them. Long tables repeat one
block of rows, each at a place of its own in memory and on disk. A look-up is encoder.features.Features.items: hashes, rows, f32.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

from bench.result import Result
from encoder.features import Features, item_seeds
from encoder.tables import decode_rows, encode_table
from schemas.bundle import FP16, INT4, PRESETS, SUB_TABLES, TABLE_CODES, item_table_layout
from schemas.errors import ConfigError

_BLOCK_ROWS = 1 << 16
#: Of a machine's free memory and disk, what a table may take.
_SHARE = 0.7


@dataclass(frozen=True)
class TablesBench:
    """
    Attributes:
        rows: of each sub-table; a length that does not fit memory or disk is named and left out.
        d_model: width of the embeddings.
        tokens: of a look-up.
        seconds: that each table is measured for.
    """

    rows: tuple[int, ...] = (4096, 1_000_000, 10_000_000)
    d_model: int = PRESETS["small"].d_model
    tokens: int = 1000
    seconds: float = 2.0

    def __post_init__(self) -> None:
        if not self.rows or min(self.rows) < 1:
            raise ConfigError(f"rows: {self.rows}: name lengths of tables, 1 or more")
        if self.d_model < SUB_TABLES or self.d_model % SUB_TABLES:
            raise ConfigError(f"d_model: {self.d_model} is no multiple of {SUB_TABLES}")


class Look(NamedTuple):
    """Time of a look-up, once the table is in the page cache.

    Attributes:
        cold_us: of the first, of a table that is on disk alone; None in memory, and where the cache cannot be emptied.
    """

    us_p50: float
    us_p99: float
    cold_us: float | None


def run(config: TablesBench, say: Callable[[str], None]) -> Result:
    """Measure each length of table in each code."""
    figures: dict[str, float | int | None] = {}
    looks: list[dict[str, Any]] = []
    for code in TABLE_CODES:
        figures[f"{code}_relative_l2_error"] = relative_error(code, config.d_model // SUB_TABLES)
    for rows in config.rows:
        sizes = {code: _bytes(code, rows, config.d_model) for code in TABLE_CODES}
        with tempfile.TemporaryDirectory(prefix="slipstream-bench-") as made:
            missing = _room(sizes, Path(made))
            for code in TABLE_CODES:
                figures[f"{code}_bytes_{rows}_rows"] = sizes[code]
                if missing:
                    continue
                file = Path(made) / f"{code}.npy"
                _write(file, code, rows, config)
                for place in ("memory", "mapped"):
                    look = _measure(file, place, rows, config)
                    figures[f"{code}_{place}_us_per_{config.tokens}_tokens_{rows}_rows"] = look.us_p50
                    looks.append({"code": code, "place": place, "rows": rows, **look._asdict()})
                    say(f"{rows:,} rows, {code}, {place}: {look.us_p50:.0f} us for {config.tokens:,} tokens")
                file.unlink()
        if missing:
            say(f"{rows:,} rows are left out: {missing}")
    figures["int4_bytes_over_fp16"] = _bytes(INT4, 1, config.d_model) / _bytes(FP16, 1, config.d_model)
    return Result(
        "tables",
        figures,
        {"rows": config.rows, "d_model": config.d_model, "tokens": config.tokens, "seconds": config.seconds},
        {"looks": looks, "presets": _presets()},
    )


def relative_error(code: str, width: int) -> float:
    """L2 norm of what a code rounds away, over that of the table: of `(8, R, width)` normally distributed numbers."""
    values = _random(width)
    off = decode_rows(encode_table(values, code), width) - values
    return float(np.linalg.norm(off) / np.linalg.norm(values))


def _random(width: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((SUB_TABLES, _BLOCK_ROWS // SUB_TABLES, width), np.float32)


def _presets() -> dict[str, dict[str, float]]:
    """What int4 is for each size of model."""
    return {
        name: {
            "row_width": shape.d_model // SUB_TABLES,
            "int4_bytes_over_fp16": _bytes(INT4, 1, shape.d_model) / _bytes(FP16, 1, shape.d_model),
            "int4_relative_l2_error": relative_error(INT4, shape.d_model // SUB_TABLES),
        }
        for name, shape in PRESETS.items()
    }


def _bytes(code: str, rows: int, d_model: int) -> int:
    dtype, shape = item_table_layout(code, rows, d_model // SUB_TABLES)
    return dtype.itemsize * int(np.prod(shape, dtype=np.int64))


def _room(sizes: dict[str, int], directory: Path) -> str:
    """What is missing for tables of these sizes; empty: nothing."""
    needed = max(sizes.values())
    for what, free in (
        ("memory", psutil.virtual_memory().available),
        ("disk", shutil.disk_usage(directory).free),
    ):
        if needed > _SHARE * free:
            return f"{needed / 2**30:.1f} GiB of {what}, {free / 2**30:.1f} are free"
    return ""


def _write(file: Path, code: str, rows: int, config: TablesBench) -> None:
    width = config.d_model // SUB_TABLES
    block = encode_table(_random(width), code)  # (8, r, ...)
    dtype, shape = item_table_layout(code, rows, width)
    table = np.lib.format.open_memmap(file, "w+", dtype, shape)
    for at in range(0, rows, block.shape[1]):
        part = table[:, at : at + block.shape[1]]
        part[...] = block[:, : part.shape[1]]
    table.flush()


def _measure(file: Path, place: str, rows: int, config: TablesBench) -> Look:
    d = config.d_model
    emptied = place == "mapped" and _drop_from_cache(file)
    items = np.load(file, mmap_mode="r" if place == "mapped" else None)
    row = np.zeros((1, d), np.float16)
    features = Features(items, row, row, row, row[0], item_seeds(0))
    rng = np.random.default_rng(0)

    def look() -> float:
        ids = rng.integers(0, 1 << 62, config.tokens)
        began = time.perf_counter()
        features.items(ids)
        return (time.perf_counter() - began) * 1e6

    cold = look()
    if place == "mapped":  # all of it into the page cache, as it is after a while
        with file.open("rb") as whole:
            while whole.read(1 << 24):
                pass
    _repeat(look, config.seconds / 2)
    taken = _repeat(look, config.seconds)
    return Look(float(np.median(taken)), float(np.percentile(taken, 99)), cold if emptied else None)


def _repeat(look: Callable[[], float], seconds: float) -> list[float]:
    """Looks up for so long."""
    ends = time.perf_counter() + seconds
    taken = [look()]
    while time.perf_counter() < ends:
        taken.append(look())
    return taken


def _drop_from_cache(file: Path) -> bool:
    """Leave a written file on disk alone. Whether that can be asked for here."""
    if not hasattr(os, "posix_fadvise"):
        return False
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True
