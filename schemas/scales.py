"""The scales of int8 keys and values, and their code of one byte: 16 numbers to each octave, from 2^-14 to 3.875.

A scale on this grid is an fp16 whose lowest six bits are 0, so that eight of its bits tell it (its sign is +, and only 16
exponents occur):

    fp16 bits = (code + 16) * 64            code = fp16 bits / 64 - 16

The graphs round scales up to the grid before they quantise (encoder/graph_attention.py), so int8 values are exact to the scale
that is stored, and a step is at most 6% wider than it had to be. Scales of trained models are about .005 to .05; keys and values
past 127 * 3.875 = 492 are cut to that.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.errors import BundleError

#: Of a scale on the grid, the leading one included.
SIGNIFICANT_BITS = 5
MIN_SCALE, MAX_SCALE = 2.0**-14, 3.875
#: No two neighbours of the grid are further apart than by this factor, and no others are as near.
NEIGHBOURS = 1 + 2.0 ** (1 - SIGNIFICANT_BITS)
_CUT_BITS = 11 - SIGNIFICANT_BITS  # of fp16's 11 significant bits
_FIRST = 1 << (10 - _CUT_BITS)  # of 2^-14, the smallest normal fp16


def encode_scales(scales: NDArray[np.float16]) -> NDArray[np.uint8]:
    """Scales on the grid as their codes. Any shape, f16 -> u8. What is no number becomes the largest.

    Raises:
        BundleError: a number is not on the grid, so the graphs that made it are not of this version.
    """
    bits = scales.view(np.uint16)
    if np.any(bits & ((1 << _CUT_BITS) - 1)):
        raise BundleError(
            "the model's graphs give scales that no state of this version can hold: export the model again"
        )
    return np.clip((bits >> _CUT_BITS).astype(np.int16) - _FIRST, 0, 255).astype(np.uint8)


def decode_scales(codes: NDArray[np.uint8]) -> NDArray[np.float16]:
    """The scales that codes stand for, exactly. Any shape, u8 -> f16."""
    return ((codes.astype(np.uint16) + _FIRST) << _CUT_BITS).view(np.float16)
