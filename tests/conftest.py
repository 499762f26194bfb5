"""Real Kafka and real Redis for the tests that ask for them: started once per run, stopped at its end.

With pytest-xdist each worker has its own of both. Given addresses would be shared, and some tests count what one Redis did: then
run without workers, as `make test` does.

Addresses from the environment (SLIPSTREAM_KAFKA_BOOTSTRAP, SLIPSTREAM_REDIS_URL) come first, then testcontainers where a Docker
engine works, then this machine's own programs, as for `slipstream up`. Where none of them is there, the tests that ask fail: they
never skip.
"""

from __future__ import annotations

import os
import signal
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, settings
from testcontainers.compose import DockerCompose

from slipstream.stack import Stack, down, process, running
from slipstream.stack.choose import CHECKOUT, Machine
from slipstream.stack.docker import why_not
from slipstream.stack.process import HOST, free_port

# No test depends on speed, Hypothesis's own checks of it included. CI draws the same examples each time: a red run there is the
# change's doing; new examples are drawn at every run on a developer's machine.
settings.register_profile("slipstream", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("ci", settings.get_profile("slipstream"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "slipstream")


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background jobs ignore Ctrl-C, and so would all that they start: tests send it to themselves and to commands.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Between the choice of a free port and its use another worker must not choose it.
    if worker := getattr(config, "workerinput", None):
        own = int(worker["workerid"].removeprefix("gw"))
        process.PORTS = process.PORTS[own :: worker["workercount"]]


#: Files whose tests mostly wait, for sessions to end and for brokers: minutes each. Begun last, they would be waited for alone.
_LONG = (
    "test_stuck.py",
    "test_security.py",
    "test_stream_faults.py",
    "test_chaos.py",
    "test_rocksdb.py",
    "test_dead_letters_cli.py",
    "test_train_processes.py",
    "test_health.py",
    "test_offsets.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of xdist's workers each begins with one part of the tests in their order: let each part begin with long ones."""
    worker = getattr(config, "workerinput", None)
    if worker is None:
        return
    parts = int(worker["workercount"])
    of_file = {name: [item for item in items if item.path.name == name] for name in _LONG}
    others = [item for item in items if item.path.name not in _LONG]
    heads = [[item for name in _LONG[i::parts] for item in of_file[name]] for i in range(parts)]
    size = -(-len(items) // parts)
    items.clear()
    for head in heads:
        room = max(0, size - len(head))
        items += head + others[:room]
        others = others[room:]
    items += others


def _containers(directory: Path) -> DockerCompose | None:
    """Kafka and Redis of our compose file, on free ports, under a project of their own; None where no Docker engine works."""
    engine = Machine.this().program("docker")
    if engine is None or why_not(engine):
        return None
    kafka_port = free_port()
    variables = {
        "COMPOSE_PROJECT_NAME": f"slipstream-test-{uuid.uuid4().hex[:8]}",
        "KAFKA_PORT": str(kafka_port),
        "REDIS_PORT": str(free_port([kafka_port])),
    }
    env_file = directory / "compose.env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    # `wait` is for the health checks of the compose file.
    return DockerCompose(
        CHECKOUT,
        "docker-compose.yml",
        services=["kafka", "redis"],
        env_file=str(env_file),
        wait=True,
        keep_volumes=False,
    )


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Topics and keys are shared by the whole run: make your own with `prefix`. Do not stop it: other tests go on using it."""
    data_dir = tmp_path_factory.mktemp("stack")
    kafka_bootstrap = os.environ.get("SLIPSTREAM_KAFKA_BOOTSTRAP")
    redis_url = os.environ.get("SLIPSTREAM_REDIS_URL")
    with ExitStack() as until_the_end:
        if not (kafka_bootstrap and redis_url) and (containers := _containers(data_dir)):
            until_the_end.enter_context(containers)
            kafka_bootstrap = kafka_bootstrap or f"{HOST}:{containers.get_service_port('kafka', 9092)}"
            redis_url = redis_url or f"redis://{HOST}:{containers.get_service_port('redis', 6379)}/0"
        started = until_the_end.enter_context(
            running(data_dir, kafka_bootstrap, redis_url, notify=lambda message: print(message, file=sys.stderr))
        )
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
