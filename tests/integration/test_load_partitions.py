"""Loading changelog partitions of which the first one is in use while another one still loads.

Run: pytest tests/integration/test_load_partitions.py
"""

from __future__ import annotations

import threading
import time

import pytest
from confluent_kafka import Producer

from edge.kafka import KafkaConfig
from schemas.names import Names
from schemas.sequence import EMPTY, encode_sequence
from stream.recovery import Ends, Loaded, load_partitions
from stream.store import MemoryStores
from stream.topics import create_topics

pytestmark = pytest.mark.integration

VALUE = encode_sequence(EMPTY._replace(forgotten_before_ms=1))


def test_what_the_owner_of_a_loaded_partition_writes_is_not_read(kafka_bootstrap: str, prefix: str) -> None:
    """It once ended the worker, which the next start repeated: in the midst of a backlog owners write at once."""
    kafka, names = KafkaConfig(kafka_bootstrap), Names(prefix)
    topic = names.sequences
    create_topics(kafka, names, 2)
    producer = Producer({"bootstrap.servers": kafka_bootstrap, "log_level": 0})

    def write(partition: int, users: int) -> None:
        for i in range(users):
            producer.produce(topic, VALUE, f"user-{i}", partition=partition)
        assert producer.flush(30) == 0

    write(0, 10)
    write(1, 10)
    loaded: dict[int, Loaded] = {}

    def on_loaded(one: Loaded) -> None:
        loaded[one.partition] = one
        if one.partition == 0:
            write(0, 20)
            time.sleep(1)  # long enough for the loader to have fetched them, and for nothing else
            write(1, 11)  # to its end

    ends = Ends({0: 10, 1: 21}, as_of_ms=0)
    load_partitions(kafka, topic, MemoryStores(), ends, on_loaded, threading.Event(), stalled_after_s=30)
    assert {partition: (one.records, len(one.table)) for partition, one in loaded.items()} == {0: (10, 10), 1: (21, 11)}
