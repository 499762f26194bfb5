from __future__ import annotations

import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from encoder.past import Resident, gather_past
from schemas.bundle import PRESETS
from schemas.scales import decode_scales
from schemas.sequence import RECORD
from schemas.state import Header, StateLayout
from tests.encoder import states
from tests.encoder.states import fence, slots, write

LAYOUT = StateLayout(PRESETS["nano"], "00" * 8)


def test_ragged_states_lie_side_by_side() -> None:
    rng = np.random.default_rng(0)
    parts = []
    for length in (3, 0, 17):
        kv = rng.integers(-127, 128, (length, 2, 2, 1, 32), np.int8)
        parts.append((kv, (rng.random((length, 2, 2, 1)) + 0.5).astype(np.float16)))
    kv, scales, lengths = gather_past(parts, 20, LAYOUT)
    assert (kv.shape, kv.dtype) == ((3, 20, 2, 2, 1, 32), np.int8)
    assert (scales.shape, scales.dtype) == ((3, 20, 2, 2, 1), np.float16)
    assert lengths.tolist() == [3, 0, 17]
    for row, (its_kv, its_scales) in enumerate(parts):
        np.testing.assert_array_equal(kv[row, : len(its_kv)], its_kv)
        np.testing.assert_array_equal(scales[row, : len(its_kv)], its_scales)
        assert not kv[row, len(its_kv) :].any(), "padding must be zero"
        assert not scales[row, len(its_kv) :].any(), "padding must be zero"


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=6))
def test_a_resident_state_is_what_was_written(changes: list[tuple[int, int]]) -> None:
    """Slots stay, go and come; capacity steps are crossed both ways."""
    whole = _noise(1, seed=0)
    resident = Resident(_header(whole), whole, states.LAYOUT)
    for seed, (stays, more) in enumerate(changes, start=1):
        kept = min(stays, len(whole))
        new = _noise(more if kept + more else 1, seed)
        crc = zlib.crc32(new.tobytes(), resident.slots_crc(kept))
        whole = np.concatenate([whole[:kept], new])
        assert crc == zlib.crc32(whole.tobytes())
        resident.become(_header(whole), kept, new)
        kv, scales = resident.past(len(whole))
        assert resident.events.tobytes() == whole["event"].tobytes()
        assert (kv.tobytes(), scales.tobytes()) == (
            whole["kv"].tobytes(),
            decode_scales(whole["scale_codes"]).tobytes(),
        )


def _noise(length: int, seed: int) -> NDArray[np.void]:
    records = np.zeros(length, RECORD)
    records["timestamp_ms"] = np.arange(length)
    return slots(records, seed)


def _header(whole: NDArray[np.void]) -> Header:
    return write(b"u", None, fence(1), 0, whole).header
