"""What the commands of the stages hand on from the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from slipstream.cli.app import app
from tests.bundles import random_bundle

RUN = {
    "ingest": "stream.ingest.run_ingest",
    "sequence": "stream.sequence.run_sequence",
    "encode": "encoder.worker.run_encode",
}


@pytest.mark.parametrize("stage", RUN)
def test_each_stage_is_told_its_session_timeout(stage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    random_bundle(tmp_path / "model")
    told: list[Any] = []
    monkeypatch.setattr(RUN[stage], told.append)
    where = {"SLIPSTREAM_KAFKA_BOOTSTRAP": "kafka:9092", "SLIPSTREAM_REDIS_URL": "redis://redis"}
    ran = CliRunner().invoke(
        app, ["--data-dir", str(tmp_path), stage], env={**where, "SLIPSTREAM_SESSION_TIMEOUT_MS": "20000"}
    )
    assert ran.exit_code == 0, ran.output
    assert told[0].session_timeout_s == 20.0
