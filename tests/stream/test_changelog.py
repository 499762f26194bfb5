"""What becomes of aiokafka's errors: each ends the worker with the exit code that says what to do."""

from __future__ import annotations

import pytest
from aiokafka.errors import (  # type: ignore[import-untyped]
    InvalidTopicError,
    KafkaConnectionError,
    KafkaError,
    KafkaStorageError,
    MessageSizeTooLargeError,
    ProducerFenced,
    UnknownError,
)

from schemas.errors import FencedError, SlipstreamError, TopicError, UnavailableError
from stream.changelog import failure

EXPECTED = [
    (ProducerFenced(), FencedError),
    (MessageSizeTooLargeError(), TopicError),
    (KafkaConnectionError(), UnavailableError),
    (KafkaStorageError(), UnavailableError),
    (UnknownError(), UnavailableError),
    (InvalidTopicError(), SlipstreamError),
]


@pytest.mark.parametrize(("error", "expected"), [*EXPECTED, (TimeoutError(), UnavailableError)])
def test_an_error_of_aiokafka(error: Exception, expected: type[SlipstreamError]) -> None:
    found = failure(error, "topic t, partition 3: not written", 5)
    assert type(found) is expected
    assert str(found).startswith("topic t, partition 3: not written")


@pytest.mark.parametrize(("error", "expected"), EXPECTED)
def test_an_error_that_aiokafka_wraps(error: Exception, expected: type[SlipstreamError]) -> None:
    once, twice = KafkaError(repr(error)), KafkaError("Unexpected error during batch delivery")
    once.__cause__, twice.__cause__ = error, once
    for wrapped in (once, twice):
        found = failure(wrapped, "topic t, partition 3: not written", 5)
        assert type(found) is expected
