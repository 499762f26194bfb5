"""The headers of many states at once: what a ranker's read of 50 users spends its time on.

Accepts what is plainly good; whatever is not is left to schemas.state.decode_header, which alone says what is wrong with it.

Letters: n values, d model width.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.state import FIXED_BYTES, NO_REVISION, Fence, Header, Kind, StateLayout, encode_header

#: Up to the model id: magic, version, kind, header_bytes. The same in every state of a model.
_BEGINNING = slice(0, 16)
#: layers to dtype, the same likewise.
_SIZES = slice(56, 69)
_CRC_AT = FIXED_BYTES - 4
#: The fields that differ, as in schemas/state.py.
_FIELDS: dict[str, tuple[str, int]] = {
    "revision": ("V8", 16),
    "topic_id": ("V16", 24),
    "offset": ("<i8", 40),
    "partition": ("<u4", 48),
    "length": ("<u2", 52),
    "capacity": ("<u2", 54),
    "newest_event_ms": ("<i8", 72),
    "arrived_ms": ("<i8", 80),
    "encoded_ms": ("<i8", 88),
    "slots_crc": ("<u4", 96),
    "header_crc": ("<u4", _CRC_AT),
}


def decode_headers(values: Sequence[bytes], layout: StateLayout) -> list[Header | None]:
    """The headers of values, or of their first `layout.header_bytes` bytes: 57 us for 50, where one by one they take 140.

    Returns:
        For each value what `decode_header` returns; None for a deleted user's marker, and for whatever it would refuse.
    """
    size = layout.header_bytes
    headers: list[Header | None] = [None] * len(values)
    long_enough = [i for i, value in enumerate(values) if len(value) >= size]
    heads = [values[i][:size] for i in long_enough]
    beginning, sizes = _constants(layout)
    octets = np.frombuffer(b"".join(heads), np.uint8).reshape(-1, size)  # (n, header_bytes)
    fields = octets.view(_fields(size))[:, 0]  # (n,)
    good = (octets[:, _BEGINNING] == beginning).all(axis=1) & (octets[:, _SIZES] == sizes).all(axis=1)
    length = fields["length"]
    good &= (length > 0) & (length <= fields["capacity"]) & (length <= layout.shape.context)
    good &= fields["header_crc"] == [zlib.crc32(head[FIXED_BYTES:], zlib.crc32(head[:_CRC_AT])) for head in heads]
    for i, is_good, header in zip(long_enough, good.tolist(), _headers(octets, fields, layout), strict=True):
        if is_good:
            headers[i] = header
    return headers


def _headers(octets: NDArray[np.uint8], fields: NDArray[Any], layout: StateLayout) -> list[Header]:
    """Whatever is in the fields."""
    embeddings = octets[:, FIXED_BYTES:].view("<f2")  # (n, d)
    columns = {name: fields[name].tolist() for name in _FIELDS}
    fences = map(Fence, columns["topic_id"], columns["partition"], columns["offset"])
    rest = (
        columns[name] for name in ("length", "capacity", "newest_event_ms", "arrived_ms", "encoded_ms", "slots_crc")
    )
    n = len(fields)
    return list(map(Header, [Kind.STATE] * n, [layout.model_id] * n, columns["revision"], fences, *rest, embeddings))


@lru_cache(maxsize=8)
def _constants(layout: StateLayout) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """What is the same in all states of a model, from a header as it is written."""
    embedding = np.zeros(layout.shape.d_model, np.float16)
    header = Header(Kind.STATE, layout.model_id, NO_REVISION, Fence(bytes(16), 0, 0), 1, 1, 0, 0, 0, 0, embedding)
    octets = np.frombuffer(encode_header(header, layout), np.uint8)
    return octets[_BEGINNING], octets[_SIZES]


@lru_cache(maxsize=8)
def _fields(header_bytes: int) -> np.dtype[Any]:
    formats, offsets = zip(*_FIELDS.values(), strict=True)
    return np.dtype({"names": list(_FIELDS), "formats": formats, "offsets": offsets, "itemsize": header_bytes})
