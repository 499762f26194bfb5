"""Run: pytest tests/stream/test_partitioner.py"""

from __future__ import annotations

import numpy as np
from aiokafka.partitioner import murmur2  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from stream.partitioner import murmur2_many, partitions_of

# org.apache.kafka.common.utils.UtilsTest#testMurmur2
GOLDEN = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


def test_kafkas_own_vectors() -> None:
    assert murmur2_many(list(GOLDEN)).view(np.int32).tolist() == list(GOLDEN.values())


@given(st.lists(st.binary(max_size=300), max_size=30))
def test_as_aiokafka_one_by_one(keys: list[bytes]) -> None:
    assert murmur2_many(keys).tolist() == [murmur2(key) & 0xFFFFFFFF for key in keys]


@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(1, 500))
def test_partitions(keys: list[bytes], partitions: int) -> None:
    found = partitions_of(keys, partitions)
    assert found.dtype == np.int32
    assert found.tolist() == [(murmur2(key) & 0x7FFFFFFF) % partitions for key in keys]


def test_users_spread_evenly() -> None:
    counts = np.bincount(partitions_of([b"user-%d" % i for i in range(40_000)], 8))
    assert counts.min() > 4700
    assert counts.max() < 5300
