"""What several files stand on: a small model, a changelog of a test's own, a Kafka that wants certificates and logins."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from schemas.names import Names
from tests.encoder.models import Model, small_model
from tests.integration.encoding import Changelog
from tests.integration.secure import SecureKafka, secure_kafka


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return small_model(tmp_path_factory.mktemp("model") / "bundle")


@pytest.fixture
def changelog(kafka_bootstrap: str, prefix: str) -> Iterator[Changelog]:
    made = Changelog(kafka_bootstrap, Names(prefix))
    yield made
    made.delete()


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with secure_kafka(tmp_path_factory.mktemp("secure")) as kafka:
        yield kafka
