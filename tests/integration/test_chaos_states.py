"""What judges the states of a chaos run: it sees what is wrong, and excuses only what it did itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.chaos.redis import RedisInTrouble
from bench.chaos.states import Damage, StatesVerdict, judge_states
from edge.kafka import KafkaConfig
from schemas.names import Names
from tests.encoder.histories import events
from tests.encoder.models import Model
from tests.integration.encoding import Changelog, encoder

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

USERS = [b"user-%d" % i for i in range(40)]


@pytest.fixture
def trouble(tmp_path: Path) -> Iterator[RedisInTrouble]:
    made = RedisInTrouble(tmp_path / "redis", lambda text: None)
    yield made
    made.close()


def test_the_judge_of_states(
    model: Model, trouble: RedisInTrouble, kafka_bootstrap: str, prefix: str, tmp_path: Path
) -> None:
    names = Names(prefix)
    # One partition: where these tests and the sequence stage put a user is the same then.
    changelog = Changelog(kafka_bootstrap, names, partitions=1)
    changelog.write({user: events(range(5 + i), seed=i) for i, user in enumerate(USERS)})
    with encoder(model, changelog, trouble.url, tmp_path / "log") as worker:
        changelog.wait_for(model)
        assert worker.terminate() == 0
    damage = Damage(trouble, names, model.bundle, seed=1)
    client = trouble.server.client

    def key(user: bytes) -> bytes:
        return names.state_key(model.bundle.model_id, user)

    def judged() -> StatesVerdict:
        return judge_states(KafkaConfig(kafka_bootstrap), names, model.bundle, trouble, damage, lambda text: None)

    assert judged() == StatesVerdict(len(USERS), 0, [])

    damage.do()
    assert len(damage.users) == 20
    assert damage.unseen == 0
    whole = sorted(set(USERS) - damage.users)
    client.delete(key(whole[0]))
    trouble.evicted.add(key(whole[0]))
    assert judged() == StatesVerdict(len(USERS), 21, []), "damaged and evicted, and made anew"

    client.delete(key(whole[1]))
    stored = client.get(key(whole[3]))
    assert isinstance(stored, bytes)
    client.set(key(whole[2]), stored)
    client.set(key(b"nobody"), stored)
    client.delete(names.active_key)
    damage.unseen = 1
    verdict = judged()
    assert sorted(mismatch.user for mismatch in verdict.differing) == whole[1:3]
    assert verdict.remade == 0
    assert verdict.problems == [
        "2 states differ",
        "a reader took 1 damaged states for whole ones",
        f"rankers are to read model None, not {model.bundle.model_id}",
        "1 users have a state and no sequence",
    ]
    changelog.delete()
