"""How a worker leaves its consumer group."""

from __future__ import annotations

import logging

from confluent_kafka import Consumer

from edge.kafka import KafkaConfig
from edge.process import FAREWELL_S, in_time


def leave_group(consumer: Consumer, kafka: KafkaConfig, logger: logging.Logger) -> bool:
    """Close the consumer. False: Kafka did not answer in time, and a thread of this process still waits for it."""
    if in_time(FAREWELL_S, consumer.close):
        return True
    logger.warning(
        "Kafka at %s does not answer: the group is left without it; what was not committed comes again",
        kafka.bootstrap_servers,
    )
    return False
