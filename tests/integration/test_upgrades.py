"""docs/upgrades.md: another number of partitions, under a new prefix and in place; a newer version of sequences.

Run: pytest tests/integration/test_upgrades.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge.kafka import KafkaConfig
from schemas.event import ParserConfig
from schemas.names import Names
from schemas.sequence import NO_RECORDS, Sequence, encode_sequence
from stream.oracle import Rebuilt, compare, read_raw, read_sequences, rebuild
from stream.topics import create_topics
from tests.encoder.models import Model
from tests.integration.encoding import Changelog, encoder
from tests.integration.streaming import Deployment, random_events, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
FEW, MORE = 2, 6


def what_must_be(kafka: KafkaConfig, names: Names) -> Rebuilt:
    return rebuild(read_raw(kafka, names), ParserConfig(), 256)


def work_off(deployment: Deployment) -> None:
    workers = [deployment.start(stage) for stage in ("ingest", "sequence")]
    deployment.drain()
    assert [worker.stop() for worker in workers] == [0, 0]


def test_another_number_of_partitions(kafka_bootstrap: str, prefix: str, tmp_path: Path) -> None:
    new = Names(f"{prefix}-new")
    with Deployment(kafka_bootstrap, prefix, tmp_path, FEW) as old:
        old.send(random_events(400, 40, forget_share=0.02))
        work_off(old)
        truth = what_must_be(old.kafka, old.names)
        assert compare(truth, read_sequences(old.kafka, old.names)) == []

        # Under a new prefix: its raw topic gives the same sequences. A floor is not an event, and is not copied.
        settings = {"SLIPSTREAM_KAFKA_BOOTSTRAP": kafka_bootstrap, "SLIPSTREAM_PREFIX": new.prefix}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SLIPSTREAM_")}
        command = [sys.executable, "-m", "slipstream", "replay", f"kafka:{old.names.engagements}"]
        create_topics(old.kafka, new, MORE)
        done = subprocess.run(command, env=clean | settings, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        copied = {user: rows for user, (_, rows) in what_must_be(old.kafka, new).sequences.items()}
        assert copied == {user: rows for user, (_, rows) in truth.sequences.items() if rows}

        # In place: both topics are made anew, and ingest reads the raw topic again.
        both, client = [old.names.batches, old.names.sequences], old.admin.client
        for deleted in client.delete_topics(both).values():
            deleted.result()
        for group in (old.names.ingest_group, old.names.sequence_app):
            client.delete_consumer_groups([group])[group].result()
        wait_until("they are gone", lambda: not any(map(old.admin.partitions, both)))
        assert set(create_topics(old.kafka, old.names, MORE).created) == set(both)
        work_off(old)
        assert compare(truth, read_sequences(old.kafka, old.names)) == []


def test_an_encoder_skips_no_sequence_of_a_newer_version(
    model: Model, changelog: Changelog, redis_url: str, tmp_path: Path
) -> None:
    newer = bytearray(encode_sequence(Sequence(0, NO_RECORDS)))
    newer[2] = 2
    changelog.write_raw([(b"u", bytes(newer))])
    with encoder(model, changelog, redis_url, tmp_path / "log") as worker:
        assert worker.process.wait(60) == 4, worker.log
        assert "sequence version 2, this build reads 1" in worker.log
    assert changelog.lag(model) > 0
