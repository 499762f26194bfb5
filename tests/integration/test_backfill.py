"""Backfill on real Kafka and Redis: live users do not wait for it, and nothing is lost of either, whatever happens meanwhile.

Run: pytest tests/integration/test_backfill.py
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.kafka import KafkaConfig
from encoder.backfill import BackfillConfig
from encoder.store_redis import RedisStateStore, connect
from schemas.sequence import NO_RECORDS, Records
from schemas.state import State
from slipstream.rollover import Models
from stream.group_offsets import committed_offsets
from tests.encoder.histories import events
from tests.encoder.models import Model
from tests.integration.encoding import Changelog, encoder, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

PAST = [b"past-%d" % i for i in range(1200)]
LIVE = [b"live-%d" % i for i in range(8)]
#: While live records come a user now and then, one at a time; when none come, as fast as it goes.
SLOW = BackfillConfig(from_records=20, share=0.01, run_ms=0.001)


def history(step: int, seed: int) -> Records:
    return events([100 * i + seed % 7 for i in range(step + 1)][-24:], seed=seed)


def write_past(changelog: Changelog, users: list[bytes] = PAST) -> None:
    """Each user twice, not compacted; one forgotten; records of a transaction that was aborted at the end."""
    changelog.write({user: history(1, i) for i, user in enumerate(users)})
    changelog.write({user: history(2 + i % 9, i) for i, user in enumerate(users)})
    changelog.write({users[0]: NO_RECORDS})
    changelog.write_raw([(user, b"never committed") for user in users[:20]], commit=False)


class Live:
    """Goes on writing live users' next sequences, each in a transaction."""

    def __init__(self, changelog: Changelog) -> None:
        self._changelog = changelog
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def _write(self) -> None:
        step = 0
        while not self._stop.is_set():
            self._changelog.write({user: history(step, 1000 + i) for i, user in enumerate(LIVE)})
            step += 1
            self._stop.wait(0.02)

    @contextmanager
    def writing(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()


class States:
    """What readers find."""

    def __init__(self, model: Model, changelog: Changelog, redis_url: str) -> None:
        self._store = RedisStateStore(connect(redis_url), changelog.names, model.layout)

    def count(self, users: list[bytes]) -> int:
        return sum(isinstance(state, State) for state in self._store.load(users))

    def longest(self, users: list[bytes]) -> int:
        return max((len(s.events) for s in self._store.load(users) if isinstance(s, State)), default=0)


def test_live_users_do_not_wait(
    model: Model, changelog: Changelog, kafka_bootstrap: str, redis_url: str, tmp_path: Path
) -> None:
    write_past(changelog)
    states = States(model, changelog, redis_url)
    models = Models(KafkaConfig(kafka_bootstrap), connect(redis_url), changelog.names)
    key = changelog.names.state_key(model.bundle.model_id, PAST[-1])
    with encoder(model, changelog, redis_url, tmp_path / "log", backfill=SLOW) as worker, connect(redis_url) as client:
        worker.wait_for_log("live records go first")
        changelog.write({PAST[-1]: NO_RECORDS})
        with Live(changelog).writing():
            wait_until("live users have states", lambda: states.count(LIVE) == len(LIVE))
            reached = states.longest(LIVE)
            wait_until("and are kept fresh", lambda: states.longest(LIVE) > min(reached, 23))
            wait_until("others come too", lambda: states.count(PAST) > 0)
            wait_until("how far it is can be read", lambda: models.status()[0].backfill is not None)
            (status,) = models.status()
            assert status.backfill is not None
            assert 0 < status.backfill.left <= (status.lag or 0)
            wait_until("who is forgotten meanwhile has no state", lambda: bool(client.exists(key)))
            client.delete(key)  # as if the marker had expired
            assert states.count(PAST) < len(PAST) // 2, "the past is far from done"
        changelog.wait_for(model)
        assert "backfill of this worker's partitions is done" in worker.log
        assert not client.exists(key), "an older sequence, which the past came to later, changed nothing"
        del changelog.newest[PAST[-1]]
        assert changelog.mismatches(model, redis_url) == []
        assert models.status()[0].backfill is None
        assert worker.terminate() == 0
    assert changelog.lag(model) == 0


def test_killed_in_the_midst_of_both(model: Model, changelog: Changelog, redis_url: str, tmp_path: Path) -> None:
    write_past(changelog)
    states = States(model, changelog, redis_url)
    with Live(changelog).writing():
        with encoder(model, changelog, redis_url, tmp_path / "killed", backfill=SLOW) as worker:
            wait_until("some of the past is committed", lambda: committed(model, changelog) > 0)
            wait_until("live users have states", lambda: states.count(LIVE) == len(LIVE))
            worker.kill()
        assert states.count(PAST) < len(PAST) // 2
    with encoder(model, changelog, redis_url, tmp_path / "log", backfill=SLOW) as worker:
        changelog.wait_for(model)
        assert changelog.mismatches(model, redis_url) == []
        assert worker.terminate() == 0


def committed(model: Model, changelog: Changelog) -> int:
    """Offsets, over all partitions."""
    where = [(changelog.names.sequences, p) for p in range(changelog.partitions)]
    group = changelog.names.encoder_group(model.bundle.model_id)
    return sum(committed_offsets(KafkaConfig(changelog.bootstrap), group, where).values())


def test_partitions_move_meanwhile(model: Model, changelog: Changelog, redis_url: str, tmp_path: Path) -> None:
    write_past(changelog)
    states = States(model, changelog, redis_url)
    with Live(changelog).writing(), encoder(model, changelog, redis_url, tmp_path / "a", backfill=SLOW) as a:
        a.wait_for_log("offsets behind")
        with encoder(model, changelog, redis_url, tmp_path / "b", backfill=SLOW) as b:
            b.wait_for_log("offsets behind")
            wait_until("live users have states", lambda: states.count(LIVE) == len(LIVE))
            assert b.terminate() == 0
        wait_until("a has all of them again", lambda: a.log.count("reading partitions [0, 1, 2, 3]") > 1)
        assert a.log.count("offsets behind") > 1
        assert states.count(PAST) < len(PAST) // 2
        assert a.terminate() == 0
    with encoder(model, changelog, redis_url, tmp_path / "c", backfill=SLOW) as c:
        changelog.wait_for(model)
        assert changelog.mismatches(model, redis_url) == []
        assert c.terminate() == 0
