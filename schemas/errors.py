"""Every error that Slipstream raises on purpose.

    SlipstreamError
    ├── ConfigError            a setting, argument or environment value is wrong
    │   └── PrerequisiteError  a program or package that the command needs is not on this machine
    ├── ContractError          bytes that do not keep their contract
    │   ├── EventError         a raw engagement event or forget request (becomes a dead letter)
    │   ├── BatchError         a packed batch of `engagement-batches`
    │   ├── SequenceError      a sequence of the changelog
    │   ├── StateError         a state value in Redis
    │   ├── BundleError        a model bundle
    │   └── LogError           an event log file that a person passed in
    ├── TopicError             a topic is missing or has the wrong partitions
    ├── UnavailableError       Kafka, Redis or the schema registry cannot be reached (retriable)
    ├── FencedError            another worker owns the partition now
    ├── StoreError             the disk under a worker's store is full or fails
    ├── ProviderError          the execution provider that was asked for is not what ran
    └── MismatchError          the oracle found a sequence or a state that is wrong

A message says what is wrong, where (topic, partition, offset, file, key) and what to do. `retriable` tells a caller whether
the same call may go through later. `exit_code` is what a command ends with (docs/operations.md lists them).
"""

from __future__ import annotations

from typing import ClassVar


class SlipstreamError(Exception):
    """The root. A command that ends with one prints its message, not a traceback."""

    retriable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1


class ConfigError(SlipstreamError):
    exit_code = 2


class PrerequisiteError(ConfigError):
    exit_code = 3


class ContractError(SlipstreamError):
    exit_code = 4


class EventError(ContractError):
    """A raw message that cannot become an event.

    `reason` is one of `REASONS`: a short, stable code, safe as a metric label and as a dead letter's header.
    """

    REASONS: ClassVar[frozenset[str]] = frozenset(
        {
            "null_value",
            "too_large",
            "format_not_accepted",
            "not_json",
            "not_msgpack",
            "unknown_schema",
            "schema_mismatch",
            "too_deep",
            "wrong_shape",
            "bad_user_id",
            "bad_item_id",
            "unknown_action",
            "unknown_surface",
            "bad_timestamp",
            "in_the_future",
            "too_old",
        }
    )

    def __init__(self, reason: str, message: str) -> None:
        assert reason in self.REASONS, reason
        super().__init__(message)
        self.reason = reason


class BatchError(ContractError):
    pass


class SequenceError(ContractError):
    pass


class StateError(ContractError):
    pass


class BundleError(ContractError):
    pass


class LogError(ContractError):
    pass


class TopicError(SlipstreamError):
    exit_code = 5


class UnavailableError(SlipstreamError):
    retriable = True
    exit_code = 6


class FencedError(SlipstreamError):
    exit_code = 7


class ProviderError(SlipstreamError):
    exit_code = 8


class MismatchError(SlipstreamError):
    exit_code = 9


class StoreError(SlipstreamError):
    exit_code = 11
