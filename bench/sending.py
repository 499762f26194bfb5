"""Events sent when they are due, whatever becomes of them: load as the world makes it does not wait for who is slow."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from confluent_kafka import Producer
from numpy.typing import NDArray

from bench.programs import Program, cpu_s_by_name
from edge.kafka import KafkaConfig


class Sent(NamedTuple):
    """
    Attributes:
        began_ms: Unix time of the first event.
        cores: CPU seconds a second while they were sent, by program.
    """

    began_ms: float
    seconds: float
    cores: dict[str, float]


def steadily(rate: float, seconds: float) -> NDArray[np.float64]:
    """When each event of a steady rate is due, seconds from the first: `(rate * seconds,)`."""
    return np.arange(int(rate * seconds)) / rate


def send(
    kafka: KafkaConfig,
    topic: str,
    keys: Sequence[bytes],
    values: Sequence[bytes],
    due_s: NDArray[np.float64],
    programs: Sequence[Program],
) -> Sent:
    """Send each event at its time, or at once if that has passed, and tell what the programs took meanwhile.

    Args:
        due_s: `(n,)`, ascending, seconds from the beginning.
    """
    before = cpu_s_by_name(programs)
    began_ms = time.time() * 1000
    producer = Producer({**kafka.client(), "partitioner": "murmur2_random"})  # which gathers for 5 ms, as by default
    start_s = time.monotonic()
    for due, key, value in zip(due_s.tolist(), keys, values, strict=True):
        ahead_s = due - (time.monotonic() - start_s)
        if ahead_s > 0:
            producer.poll(0)
            time.sleep(ahead_s)
        producer.produce(topic, value, key)
    producer.flush()
    seconds = time.monotonic() - start_s
    cores = {name: (cpu_s - before[name]) / seconds for name, cpu_s in cpu_s_by_name(programs).items()}
    return Sent(began_ms, seconds, cores)
