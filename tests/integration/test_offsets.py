"""Where topics end, asked by a client that has seen its broker die.

Run: pytest tests/integration/test_offsets.py
"""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.kafka import Admin, KafkaConfig
from schemas.names import Names
from slipstream.stack import running, start_part, stop_part
from stream.offsets import end_offsets
from stream.topics import create_topics

pytestmark = pytest.mark.integration


def test_a_client_of_before_the_brokers_restart_gets_an_answer(prefix: str, tmp_path: Path) -> None:
    """Partitions have new leader epochs then, of which the client does not know."""
    names = Names(prefix)
    with running(tmp_path / "stack") as stack:
        kafka = KafkaConfig(stack.kafka_bootstrap)
        create_topics(kafka, names, 4)
        admin, where = Admin(kafka), [(names.sequences, partition) for partition in range(4)]
        assert end_offsets(admin, where) == dict.fromkeys(where, 0)
        for _ in range(2):
            stop_part(stack.data_dir, "kafka", kill=True)
            start_part(stack.data_dir, "kafka")
            assert end_offsets(admin, where) == dict.fromkeys(where, 0)
