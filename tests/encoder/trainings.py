"""A log that can be learned, and trainings of it that take seconds."""

from __future__ import annotations

import numpy as np

from encoder.bundle import Bundle, load_bundle
from encoder.export import export
from encoder.training import TrainConfig, TrainReport
from schemas.bundle import ModelShape
from schemas.log import EventLog
from schemas.sequence import RECORD
from schemas.vocabulary import Vocabulary

SHAPE = ModelShape(layers=1, d_model=32, heads=2, kv_heads=1, context=24, keep=16, rows=512)
CONFIG = TrainConfig(
    shape=SHAPE, max_seconds=None, max_steps=150, threads=1, warmup_steps=10, negatives=64, held_out=0.1
)
ITEMS = 60


def circle_log(users: int = 40, events: int = 40, seed: int = 0) -> EventLog:
    """Every user goes round a circle of items from a random place: who knows the last item knows the next one."""
    rng = np.random.default_rng(seed)
    records = np.zeros(users * events, RECORD)
    user_index = np.tile(np.arange(users, dtype=np.int32), events)
    step = np.repeat(np.arange(events), users)
    records["timestamp_ms"] = 1_000_000 + 1000 * step + user_index
    records["item_id"] = 7 * ((rng.integers(0, ITEMS, users)[user_index] + step) % ITEMS)
    records["action"] = rng.choice([1, 4], len(records))
    return EventLog([f"user-{i}" for i in range(users)], user_index, records, Vocabulary())


def exported(report: TrainReport) -> Bundle:
    out = report.checkpoint.with_name("bundle")
    export(report.checkpoint, out)
    return load_bundle(out)
