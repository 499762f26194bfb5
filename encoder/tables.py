"""Tables of item embeddings on the host: how long they are, the codes they are stored in, and reading rows of them. No torch.

fp16: numbers as they are. int4 (arXiv 2507.12704): each row of a sub-table for itself, `bias + scale * code`, codes 0 to 15. The
bias is the row's least number, rounded down, the scale a fifteenth of what lies between it and the greatest, rounded up: the
codes reach every number of the row, and none is further off than half a step, `scale / 2`.

Letters: R rows of a sub-table, w their width, d / 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.bundle import INT4, SUB_TABLES, item_table_layout

#: What the host looks up, in the order of encoder.features.Features' arguments. Items have a code to choose, the rest is fp16.
TABLES = ("items", "actions", "surfaces", "gaps", "candidate")

ROWS_AN_ITEM = 4
MIN_ROWS, MAX_ROWS = 1 << 10, 1 << 20
#: Rows that are encoded at a time: what is computed with on the way takes some 100 B a number.
_ENCODED_ROWS = 1 << 16

Weights = Mapping[str, NDArray[np.float32]]


def rows_for(items: int) -> int:
    """Rows of each sub-table for so many distinct items: ROWS_AN_ITEM for each, up to a power of two, MIN_ROWS to MAX_ROWS.

    That two items share all eight pieces, and cannot be told apart, does not happen at any of these lengths: n items have
    n^2 / (2 R^8) such pairs, a million items in 1,024 rows 4e-13. What costs is that pieces are shared at all, since several
    items then train each of them. A piece is an item's own with a chance of exp(-n / R): with four rows an item, or nearly
    eight, 6 to 7 pieces of eight are; with one row 3. Trained on ML-100K (1,682 items, nano, two seeds) 256, 1,024, 2,048, 4,096
    and 16,384 rows gave HR@10 .173, .181, .183, .186 and .190. A row takes 2d bytes in fp16: while there are few items that is
    little. Above MAX_ROWS (256 MiB at d 128) bytes decide, as in PinFM, where many items share a row.
    """
    return min(max(1 << max(ROWS_AN_ITEM * items - 1, 0).bit_length(), MIN_ROWS), MAX_ROWS)


def encode_table(items: NDArray[np.float32], code: str) -> NDArray[Any]:
    """A table as a bundle stores it. A number beyond fp16's range gives numbers that are not finite, which no bundle takes.

    Args:
        items: `(8, R, w)` f32.

    Returns:
        fp16: `(8, R, w)` f16. int4: `(8, R)` of schemas.bundle.item_table_layout's rows.
    """
    dtype, shape = item_table_layout(code, *items.shape[1:])
    with np.errstate(over="ignore", invalid="ignore"):
        if code != INT4:
            return items.astype(dtype)
        table = np.empty(shape, dtype)
        for sub_table, encoded in zip(items, table, strict=True):
            for at in range(0, len(encoded), _ENCODED_ROWS):
                _encode_rows(sub_table[at : at + _ENCODED_ROWS], encoded[at : at + _ENCODED_ROWS])
    return table


def decode_rows(rows: NDArray[Any], width: int) -> NDArray[np.float32]:
    """Rows of a stored table, of either code, as numbers; rows of weights as they are.

    Args:
        rows: `(..., w)` f32. fp16: `(..., w)` f16, finite. int4: `(...)` of their layout.
        width: w.

    Returns:
        `(..., w)` f32.
    """
    if rows.dtype.names is None:
        return _from_half(rows) if rows.dtype == np.float16 else rows.astype(np.float32, copy=False)
    # Both codes of a byte at once, and next to each other: 0xBA -> 0x0BA0 | 0x00BA -> 0x0B0A, in memory 0A 0B.
    pairs = rows["codes"].astype("<u2")
    pairs |= pairs << np.uint16(4)
    pairs &= np.uint16(0x0F0F)
    values = pairs.view(np.uint8).astype(np.float32)[..., :width]
    values *= rows["scale"].astype(np.float32)[..., None]
    values += rows["bias"].astype(np.float32)[..., None]
    return values


def rounded_tables(weights: Weights, code: str) -> dict[str, NDArray[np.float32]]:
    """Weights as a bundle of this code serves them: the tables rounded, the rest as it is. For measuring what rounding costs."""
    rounded = dict(weights)
    for name in TABLES[1:]:
        rounded[name] = weights[name].astype(np.float16).astype(np.float32)
    rounded["items"] = decode_rows(encode_table(weights["items"], code), weights["items"].shape[-1])
    return rounded


def flat_rows(table: NDArray[Any]) -> NDArray[Any]:
    """The sub-tables one below the other: `(8, R, w)` -> `(8 R, w)`, or `(8, R)` -> `(8 R,)`. No copy."""
    return table.reshape(SUB_TABLES * table.shape[1], *table.shape[2:])


def _encode_rows(values: NDArray[np.float32], into: NDArray[Any]) -> None:
    """`(n, w)` f32 -> `(n,)` rows."""
    numbers = values.astype(np.float64)
    low, high = numbers.min(axis=-1), numbers.max(axis=-1)
    bias = low.astype(np.float16)
    bias = np.where(bias.astype(np.float64) > low, np.nextafter(bias, np.float16(-np.inf)), bias)
    step = (high - bias) / 15
    scale = step.astype(np.float16)
    scale = np.where(scale.astype(np.float64) < step, np.nextafter(scale, np.float16(np.inf)), scale)
    # A row of one number that fp16 holds: all codes are 0.
    divisor = np.where(scale > 0, scale, np.float16(1)).astype(np.float64)
    codes = np.zeros((len(values), 2 * into["codes"].shape[-1]), np.uint8)
    codes[:, : values.shape[1]] = np.rint((numbers - bias[:, None]) / divisor[:, None])
    into["scale"], into["bias"] = scale, bias
    into["codes"] = codes[:, 0::2] | (codes[:, 1::2] << 4)


def _from_half(values: NDArray[np.float16]) -> NDArray[np.float32]:
    """`astype(float32)` of finite numbers, in a sixth of its time: numpy converts them one by one.

    The bits of exponent and fraction move to their places in f32, and the exponent's bias is 112 less than it should be; the
    multiplication puts that right, exactly, and small numbers too that fp16 holds without a leading one.
    """
    bits = np.ascontiguousarray(values).view(np.int16).astype(np.int32)
    bits <<= np.int32(13)
    bits &= np.int32(-0x70002000)  # 0x8FFFE000: the sign, which was extended, once
    numbers = bits.view(np.float32)
    numbers *= np.float32(2.0**112)
    return numbers
