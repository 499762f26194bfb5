"""A nano model with random weights, and states that it really made."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import pytest

from encoder.bundle import Bundle
from encoder.runtime import Runtime, RuntimeConfig
from ranker.dcat import Dcat
from schemas.scales import encode_scales
from schemas.sequence import RECORD, Records
from schemas.state import Fence, Header, Kind, State, encode_state
from tests.bundles import random_bundle


@dataclass(frozen=True)
class Model:
    bundle: Bundle
    runtime: Runtime

    def dcat(self) -> Dcat:
        return Dcat(self.runtime, self.bundle.features, self.bundle.layout)

    def history(self, seed: int, length: int) -> Records:
        """`(length,)` of RECORD, sorted, of items in and outside of the catalogue."""
        rng = np.random.default_rng(seed)
        records = np.zeros(length, RECORD)
        records["timestamp_ms"] = 1_767_225_600_000 + np.cumsum(rng.integers(1, 10_000, length))
        records["item_id"] = rng.integers(1, 400, length)
        records["action"] = rng.integers(0, 7, length)
        records["surface"] = rng.integers(0, 6, length)
        return records

    def state(self, seed: int, length: int) -> State:
        """The state of `history(seed, length)`, as the encoder makes it."""
        return self.state_of(self.history(seed, length), seed)

    def state_of(self, records: Records, seed: int = 0) -> State:
        """The state of these events."""
        length = len(records)
        out = self.runtime.encode(self.bundle.features.window_tokens(records)[None], np.array([length - 1]))
        slots = np.zeros(length, self.bundle.layout.slot)
        slots["event"], slots["kv"], slots["scale_codes"] = records, out.kv[0], encode_scales(out.scales[0])
        arrived_ms = int(records["timestamp_ms"][-1])
        header = Header(
            Kind.STATE,
            self.bundle.model_id,
            np.random.default_rng(seed).bytes(8),
            Fence(bytes(16), 0, seed),
            length,
            self.bundle.layout.capacity_for(length),
            arrived_ms,
            arrived_ms,
            arrived_ms + 5,
            zlib.crc32(slots.tobytes()),
            out.embedding[0].astype(np.float16),
        )
        return State(header, slots)

    def value(self, state: State) -> bytes:
        return encode_state(state.header, state.slots, self.bundle.layout)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    bundle = random_bundle(tmp_path_factory.mktemp("ranker") / "bundle", "nano")
    return Model(bundle, Runtime(bundle, RuntimeConfig()))
