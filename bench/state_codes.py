"""Codes of a state's keys and values: what a slot takes in each, and what is left of the numbers.

Letters: B windows, T tokens, G kv heads, D head_dim, L layers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional

from encoder.model import Stored, as_integers, as_stored
from schemas.bundle import ModelShape
from schemas.sequence import RECORD

#: Tokens that share the scale of a channel (KIVI, arXiv 2402.02750).
_GROUP = 32


class Code(NamedTuple):
    """
    Attributes:
        kv_bytes: of one slot, scales included.
        stored: what is left of keys and values.
    """

    name: str
    what: str
    kv_bytes: Callable[[ModelShape], int]
    stored: Stored

    def slot_bytes(self, shape: ModelShape) -> int:
        return RECORD.itemsize + self.kv_bytes(shape)


def _bytes(key_bits: int, value_bits: int, scale_bytes: int, shape: ModelShape) -> int:
    """With `scale_bytes` for each scale of one token, head, and k or v."""
    vectors = shape.layers * shape.kv_heads  # of keys; as many of values
    return vectors * (shape.head_dim * (key_bits + value_bits) // 8 + 2 * scale_bytes)


def _integers(key_bits: int, value_bits: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return as_integers(k, key_bits), as_integers(v, value_bits)


def _halves(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return k.half().float(), v.half().float()


def _int8_with_halves(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    def rounded(x: Tensor) -> Tensor:
        scale = (x.abs().amax(-1, keepdim=True) / 127).clamp(2.0**-14).half().float()
        return (x / scale).round().clamp(-127, 127) * scale

    return rounded(k), rounded(v)


def _kivi(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Keys of `_GROUP` tokens by channel, values by token; both between their least and their largest, in 4 bits."""
    batch, length, heads, dims = k.shape
    channels = k.movedim(1, -1).reshape(batch, heads * dims, length)
    padded = functional.pad(channels, (0, -length % _GROUP), mode="replicate")
    groups = padded.reshape(batch, heads * dims, -1, _GROUP)
    keys = _between(groups).reshape(batch, heads, dims, -1)[..., :length].movedim(-1, 1)  # (B, T, G, D)
    return keys, _between(v)


def _between(x: Tensor) -> Tensor:
    least = x.amin(-1, keepdim=True).half().float()
    step = ((x.amax(-1, keepdim=True) - least) / 15).clamp(2.0**-14).half().float()
    return least + ((x - least) / step).round().clamp(0, 15) * step


def _kivi_bytes(shape: ModelShape) -> int:
    """Each token's share of its group's scales and zeros, two fp16 a channel, and two for its values."""
    channels = shape.layers * shape.kv_heads * shape.head_dim
    return _bytes(4, 4, 0, shape) + -(-4 * channels // _GROUP) + 4 * shape.layers * shape.kv_heads


#: What states are stored in.
STORED = "int8"
CODES = (
    Code("fp16", "16 bits a number", partial(_bytes, 16, 16, 0), _halves),
    Code("int8_fp16_scales", "int8 with scales of 16 bits: version 1 of the state", partial(_bytes, 8, 8, 2), _int8_with_halves),
    Code(STORED, "int8 with scales of 8 bits: what states are stored in", partial(_bytes, 8, 8, 1), as_stored),
    Code("int8_k_int6_v", "values in 6 bits", partial(_bytes, 8, 6, 1), partial(_integers, 8, 6)),
    Code("int8_k_int4_v", "values in 4 bits", partial(_bytes, 8, 4, 1), partial(_integers, 8, 4)),
    Code("int4", "keys and values in 4 bits", partial(_bytes, 4, 4, 1), partial(_integers, 4, 4)),
    Code("kivi4", f"KIVI: 4 bits, keys by channel of {_GROUP} tokens", _kivi_bytes, _kivi),
)  # fmt: skip
