"""What tests of encoders stand on: a small model, and a changelog of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from schemas.names import Names
from tests.encoder.models import Model, small_model
from tests.integration.encoding import Changelog


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return small_model(tmp_path_factory.mktemp("model") / "bundle")


@pytest.fixture
def changelog(kafka_bootstrap: str, prefix: str) -> Iterator[Changelog]:
    made = Changelog(kafka_bootstrap, Names(prefix))
    yield made
    made.delete()
