from __future__ import annotations

import numpy as np

from encoder.past import gather_past
from schemas.bundle import PRESETS
from schemas.scales import decode_scales
from schemas.state import StateLayout

LAYOUT = StateLayout(PRESETS["nano"], "00" * 8)


def test_ragged_states_lie_side_by_side() -> None:
    rng = np.random.default_rng(0)
    states = []
    for length in (3, 0, 17):
        slots = np.zeros(length, LAYOUT.slot)
        slots["kv"] = rng.integers(-127, 128, slots["kv"].shape)
        slots["scale_codes"] = rng.integers(0, 256, slots["scale_codes"].shape)
        states.append(slots)
    kv, scales, lengths = gather_past(states, 20, LAYOUT)
    assert (kv.shape, kv.dtype) == ((3, 20, 2, 2, 1, 32), np.int8)
    assert (scales.shape, scales.dtype) == ((3, 20, 2, 2, 1), np.float16)
    assert lengths.tolist() == [3, 0, 17]
    for row, slots in enumerate(states):
        np.testing.assert_array_equal(kv[row, : len(slots)], slots["kv"])
        np.testing.assert_array_equal(scales[row, : len(slots)], decode_scales(slots["scale_codes"]))
        assert not kv[row, len(slots) :].any(), "padding must be zero"
        assert not scales[row, len(slots) :].any(), "padding must be zero"
