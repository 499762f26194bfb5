"""A PinFM that knows a log, for rankers to begin with."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from encoder.checkpoint import Checkpoint, load_checkpoint
from encoder.evaluation.protocol import Split, cutoff_ms, time_split
from encoder.training import TrainConfig, train
from schemas.bundle import ModelShape
from schemas.log import EventLog
from tests.encoder.evaluation.logs import circle_log

SHAPE = ModelShape(layers=1, d_model=32, heads=2, kv_heads=1, context=24, keep=16, rows=512)
SAVE = ("save", 4)


class Circle(NamedTuple):
    """A log in which the last item tells the next; and a PinFM trained on what is before T."""

    log: EventLog
    split: Split
    checkpoint: Checkpoint


@pytest.fixture(scope="session")
def circle(tmp_path_factory: pytest.TempPathFactory) -> Circle:
    log = circle_log()
    log.records["action"] = SAVE[1]
    split = time_split(log, cutoff_ms(log, 0.8))
    config = TrainConfig(
        shape=SHAPE, max_seconds=None, max_steps=120, threads=1, warmup_steps=10, batch_tokens=512, held_out=0.0
    )
    directory = tmp_path_factory.mktemp("ranker") / "checkpoint"
    train(split.train_log, config, directory)
    return Circle(log, split, load_checkpoint(directory))
