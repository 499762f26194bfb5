"""Real Kafka and real Redis for the tests that ask for them: started once per run, stopped at its end.

Addresses from the environment (SLIPSTREAM_KAFKA_BOOTSTRAP, SLIPSTREAM_REDIS_URL) come first, then Docker, then this machine's
own programs, as for `slipstream up`. Where none of them is there, the tests that ask fail: they never skip.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator

import pytest
import redis

from slipstream.stack import Stack, down, running


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Topics and keys are shared by the whole run: make your own with `prefix`. Do not stop it: other tests go on using it."""
    data_dir = tmp_path_factory.mktemp("stack")
    with running(
        data_dir,
        os.environ.get("SLIPSTREAM_KAFKA_BOOTSTRAP"),
        os.environ.get("SLIPSTREAM_REDIS_URL"),
        notify=lambda message: print(message, file=sys.stderr),
    ) as started:
        yield started
    down(data_dir, discard_data=True)  # the logs stay, pytest keeps three runs


@pytest.fixture(scope="session")
def kafka_bootstrap(stack: Stack) -> str:
    return stack.kafka_bootstrap


@pytest.fixture(scope="session")
def redis_url(stack: Stack) -> str:
    return stack.redis_url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """Answers bytes."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def prefix() -> str:
    """For this test's topics, groups and keys alone."""
    return f"t{uuid.uuid4().hex[:8]}"
