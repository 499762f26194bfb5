"""Scales and their codes: each stands for the other exactly."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.errors import BundleError
from schemas.scales import MAX_SCALE, MIN_SCALE, NEIGHBOURS, SIGNIFICANT_BITS, decode_scales, encode_scales

CODES = np.arange(256, dtype=np.uint8)


def test_every_code_is_a_number_of_so_many_bits() -> None:
    scales = decode_scales(CODES)
    assert (scales[0], scales[255], scales.dtype) == (MIN_SCALE, MAX_SCALE, np.float16)
    mantissas, _ = np.frexp(scales.astype(np.float64))
    assert (mantissas * 2**SIGNIFICANT_BITS % 1 == 0).all()
    assert (np.diff(scales) > 0).all()
    np.testing.assert_array_equal(encode_scales(scales), CODES)


def test_neighbours_are_told_by_their_ratio() -> None:
    scales = decode_scales(CODES).astype(np.float64)
    assert (scales[1:] <= NEIGHBOURS * scales[:-1]).all()
    assert (scales[2:] > NEIGHBOURS * scales[:-2]).all()


def test_codes_keep_their_shape() -> None:
    assert decode_scales(CODES.reshape(2, 8, 16)[:, ::2]).shape == (2, 4, 16)
    np.testing.assert_array_equal(encode_scales(decode_scales(CODES.reshape(4, 64)))[1], CODES[64:128])


@pytest.mark.parametrize("scale", [MIN_SCALE * (1 + 2.0**-10), 0.0123, MAX_SCALE - 2.0**-9])
def test_a_scale_beside_the_grid_is_refused(scale: float) -> None:
    with pytest.raises(BundleError, match="export the model again"):
        encode_scales(np.array([1.0, scale], np.float16))


def test_what_is_no_number_stops_nobody() -> None:
    assert encode_scales(np.array([np.nan, 0.5, np.inf, 0.0], np.float16)).tolist() == [255, 208, 255, 0]
