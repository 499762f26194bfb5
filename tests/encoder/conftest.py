from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.encoder.models import Model, small_model

if TYPE_CHECKING:
    from encoder.training import Progress, TrainReport


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return small_model(tmp_path_factory.mktemp("model") / "bundle")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainReport, list[Progress]]:
    """A training of tests.encoder.trainings, and what it told on its way."""
    from encoder.training import train
    from tests.encoder.trainings import CONFIG, circle_log

    seen: list[Progress] = []
    return train(circle_log(), CONFIG, tmp_path_factory.mktemp("train") / "checkpoint", seen.append), seen
