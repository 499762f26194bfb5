from __future__ import annotations

import pytest

from tests.encoder.models import Model, small_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return small_model(tmp_path_factory.mktemp("model") / "bundle")
