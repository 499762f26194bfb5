"""Which partition a user belongs to: Kafka's default for keyed records, for many keys at once.

`toPositive(murmur2(key)) % partitions`, seed 0x9747b28c, as in org.apache.kafka.common.utils.Utils.murmur2 and in librdkafka's
`murmur2_random`. So a producer of another system that keys by user id reaches the same partition.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SEED = np.uint32(0x9747B28C)
_M = np.uint32(0x5BD1E995)
_R = np.uint32(24)


def murmur2_many(keys: Sequence[bytes]) -> NDArray[np.uint32]:
    """Kafka's murmur2 of n keys, `(n,)` u32. One pass over the longest key's 4-byte words for all keys together."""
    n = len(keys)
    lengths = np.fromiter(map(len, keys), np.int64, n)
    words_per_key = int(lengths.max(initial=0) + 3) // 4
    width = 4 * words_per_key
    # (n, words): every key padded with zeros to whole words; Kafka reads words and the tail little endian.
    padded = b"".join([key.ljust(width, b"\0") for key in keys])
    words = np.frombuffer(padded, "<u4").reshape(n, words_per_key)
    whole = lengths >> 2
    h = _SEED ^ lengths.astype(np.uint32)
    for column in range(words_per_key):
        k = words[:, column] * _M
        k ^= k >> _R
        k *= _M
        h = np.where(column < whole, (h * _M) ^ k, h)
    tail = lengths & 3
    if tail.any():
        # The tail's bytes are the first unread word, and its padding is zero.
        last = words[np.arange(n), np.minimum(whole, words_per_key - 1)]
        h = np.where(tail > 0, (h ^ last) * _M, h)
    h ^= h >> np.uint32(13)
    h *= _M
    h ^= h >> np.uint32(15)
    return h


def partitions_of(keys: Sequence[bytes], partitions: int) -> NDArray[np.int32]:
    """The partition of each of n keys, `(n,)` i32 in [0, partitions)."""
    return ((murmur2_many(keys) & np.uint32(0x7FFFFFFF)) % np.uint32(partitions)).astype(np.int32)
