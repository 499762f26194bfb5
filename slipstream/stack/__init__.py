"""The local stack: real Apache Kafka and real Redis for people, tests, demo and benchmarks."""

from slipstream.stack.choose import Machine
from slipstream.stack.guard import running
from slipstream.stack.launcher import PartStatus, StackStatus, current, down, fetch, start_part, status, stop_part, up
from slipstream.stack.state import How, Part, PartName, Stack

__all__ = [
    "How",
    "Machine",
    "Part",
    "PartName",
    "PartStatus",
    "Stack",
    "StackStatus",
    "current",
    "down",
    "fetch",
    "running",
    "start_part",
    "status",
    "stop_part",
    "up",
]
