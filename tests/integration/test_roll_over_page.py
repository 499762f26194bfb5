"""examples/roll-over: its commands as they stand there, while sequences are written and its ranker reads."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.kafka import KafkaConfig
from encoder.bundle import Bundle
from encoder.store_redis import connect
from slipstream.rollover import Models
from slipstream.stack import Stack
from tests.bundles import random_bundle
from tests.documents import ROOT, Shell, commands
from tests.encoder.histories import events
from tests.encoder.models import SHAPE
from tests.integration.encoding import Changelog, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

EXAMPLE = ROOT / "examples" / "roll-over"
USERS = 30


@contextmanager
def written(changelog: Changelog) -> Iterator[None]:
    """A sequence grows now and then, as behind the sequence stage."""
    stop = threading.Event()

    def write() -> None:
        times = {user: [1000, 2000] for user in range(USERS)}
        user = 0
        while not stop.wait(0.02):
            times[user].append(times[user][-1] + 1000)
            changelog.write({b"user-%d" % user: events(times[user][-20:], seed=user)})
            user = (user + 1) % USERS

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


def test_a_ranker_reads_through_a_roll_over(stack: Stack, changelog: Changelog, tmp_path: Path) -> None:
    old, new = (named(tmp_path, seed) for seed in (0, 1))
    directory = tmp_path / "roll-over"
    shutil.copytree(EXAMPLE, directory)
    (directory / "users.txt").write_text("\n".join(f"user-{i}" for i in range(USERS)))
    changelog.write({b"user-%d" % i: events([1000, 2000], seed=i) for i in range(USERS)})
    environment = {
        "SLIPSTREAM_KAFKA_BOOTSTRAP": stack.kafka_bootstrap,
        "SLIPSTREAM_REDIS_URL": stack.redis_url,
        "SLIPSTREAM_PREFIX": changelog.names.prefix,
        "OLD": str(old.directory),
        "NEW": str(new.directory),
    }
    export, encode_old, ranker, *rest = commands(EXAMPLE / "README.md")
    assert [word.partition("=")[0] for word in export.split()] == ["export", "OLD", "NEW"]
    log = tmp_path / "background.log"

    def says(text: str, times: int) -> None:
        wait_until(f"{text}, {times} times", lambda: log.read_text(errors="replace").count(text) == times, 300)

    models = Models(KafkaConfig(stack.kafka_bootstrap), connect(stack.redis_url), changelog.names)
    switched: Counter[str] = Counter()
    with Shell(directory, environment, log) as shell:
        shell.run(encode_old)
        wait_until("the old model has states", lambda: [model.lag for model in models.status()] == [0], 300)
        with written(changelog):
            for line in (ranker, *rest):
                said = shell.run(line)
                if line.startswith("slipstream model activate"):
                    active = new if '"$NEW"' in line else old
                    assert f"rankers read model {active.model_id}" in said
                    switched[active.model_id] += 1
                    says(f"ranks with model {active.model_id}", switched[active.model_id])
                if line.startswith("slipstream model retire"):
                    assert f"{USERS} states of model {old.model_id} deleted" in said
    assert switched == {new.model_id: 2, old.model_id: 1}
    told = json.loads(next(line for line in log.read_text().splitlines() if line.startswith('{"answered"')))
    assert set(told["answered"]) == {old.model_id, new.model_id}
    assert min(told["answered"].values()) > 0
    assert set(told["without_state"].values()) == {0}, "no request was without a state"


def named(directory: Path, seed: int) -> Bundle:
    """A bundle in a directory of its id."""
    made = random_bundle(directory / f"made-{seed}", SHAPE, seed)
    return random_bundle(directory / made.model_id, SHAPE, seed)
